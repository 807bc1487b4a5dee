//go:build suites

package suites

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/edge"
)

// demo is the demo server and how grpcurl reaches it.
type demo struct {
	dir               string // where the certificates are
	secure, plaintext string // addresses
}

func startDemo(t *testing.T) *demo {
	t.Helper()
	d := &demo{dir: t.TempDir()}
	srv, err := edge.Demo(edge.DemoOptions{CertDir: d.dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	secure, plaintext := start(t, srv)
	d.secure, d.plaintext = "127.0.0.1:"+secure, "127.0.0.1:"+plaintext
	return d
}

func (d *demo) caCert() string { return certs.Dev(d.dir).CACert() }

// grpcurl calls the TLS port.
func (d *demo) grpcurl(t *testing.T, flags ...string) func(args ...string) string {
	return grpcurl(t, d.secure, append([]string{"-cacert", d.caCert()}, flags...)...)
}

// grpcurl gives a function that runs it with flags against addr and returns
// what it printed. The last of its arguments are what to do there.
func grpcurl(t *testing.T, addr string, flags ...string) func(args ...string) string {
	path := program(t, "grpcurl")
	return func(args ...string) string {
		t.Helper()
		data := []string{}
		if len(args) > 2 {
			data, args = args[:2], args[2:] // -d and the request
		}
		out, err := run(t.Context(), path, slices.Concat(flags, data, []string{addr}, args)...)
		if err != nil {
			t.Fatalf("grpcurl %q: %v\n%s", args, err, out)
		}
		return out
	}
}

const echoService = "oneport.echo.v1.Echo"

func TestGrpcurl(t *testing.T) {
	d := startDemo(t)
	for name, call := range map[string]func(args ...string) string{
		"tls": d.grpcurl(t),
		"h2c": grpcurl(t, d.plaintext, "-plaintext"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("list", func(t *testing.T) {
				got := strings.Fields(call("list"))
				want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", echoService}
				if !slices.Equal(got, want) {
					t.Errorf("services %q, want %q", got, want)
				}
			})
			t.Run("describe", func(t *testing.T) {
				out := call("describe", echoService)
				for _, method := range []string{"Unary", "ServerStream", "ClientStream", "Bidi", "Whoami"} {
					if !strings.Contains(out, "rpc "+method+" (") {
						t.Errorf("no method %s in\n%s", method, out)
					}
				}
			})
			for _, c := range []struct {
				method, in string
				want       []map[string]any
			}{
				{echoService + "/Unary", `{"message":"hi"}`, []map[string]any{{"message": "hi"}}},
				{echoService + "/ServerStream", `{"message":"hi","count":2}`, []map[string]any{
					{"message": "hi"}, {"message": "hi", "index": 1.0},
				}},
				{echoService + "/ClientStream", `{"message":"a"} {"message":"b"}`, []map[string]any{{"message": "a b", "count": 2.0}}},
				{echoService + "/Bidi", `{"message":"a"} {"message":"b"}`, []map[string]any{{"message": "a"}, {"message": "b"}}},
				{"grpc.health.v1.Health/Check", `{}`, []map[string]any{{"status": "SERVING"}}},
				{"grpc.health.v1.Health/Check", `{"service":"` + echoService + `"}`, []map[string]any{{"status": "SERVING"}}},
			} {
				t.Run(c.method, func(t *testing.T) {
					got := objects(t, call("-d", c.in, c.method))
					if !slices.EqualFunc(got, c.want, maps.Equal) {
						t.Errorf("%s of %s answered %v, want %v", c.method, c.in, got, c.want)
					}
				})
			}
		})
	}
}

// objects reads what grpcurl printed: JSON objects, one behind the other.
func objects(t *testing.T, out string) (list []map[string]any) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var o map[string]any
		if err := dec.Decode(&o); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		list = append(list, o)
	}
	return list
}

// Whoami is one answer in two protocols: grpcurl and a GET must see the same
// fields, with a client certificate and without.
func TestGrpcurlWhoami(t *testing.T) {
	d := startDemo(t)
	client, err := certs.DevClient(d.dir, "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		call    func(args ...string) string
		url     string
		cert    *certs.Pair
		alpn    any
		subject any
	}{
		{"tls", d.grpcurl(t), "https://" + d.secure, nil, "h2", ""},
		{"certificate", d.grpcurl(t, "-cert", client.Cert, "-key", client.Key), "https://" + d.secure, &client, "h2", "CN=alice"},
		{"plaintext", grpcurl(t, d.plaintext, "-plaintext"), "http://" + d.plaintext, nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			byGRPC := objects(t, c.call(echoService+"/Whoami"))[0]
			byHTTP := d.get(t, c.url+"/api/whoami", c.cert)
			if a, b := keys(byGRPC), keys(byHTTP); !slices.Equal(a, b) {
				t.Errorf("fields by gRPC %q, by HTTP %q", a, b)
			}
			if byGRPC["protocol"] != "grpc" || byHTTP["protocol"] != "http" {
				t.Errorf("protocols %q and %q", byGRPC["protocol"], byHTTP["protocol"])
			}
			for _, who := range []map[string]any{byGRPC, byHTTP} {
				state, _ := who["tls"].(map[string]any)
				if state["alpn"] != c.alpn || state["client_subject"] != c.subject {
					t.Errorf("%s: ALPN %v and client %v, want %v and %v", who["protocol"], state["alpn"], state["client_subject"], c.alpn, c.subject)
				}
			}
		})
	}
}

// get gives the JSON object at url, over HTTP/2 where there is TLS.
func (d *demo) get(t *testing.T, url string, pair *certs.Pair) map[string]any {
	t.Helper()
	ca, err := os.ReadFile(d.caCert())
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AppendCertsFromPEM(ca)
	if pair != nil {
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v\n%s", url, res.Status, err, b)
	}
	return objects(t, string(b))[0]
}

// keys are the names of all fields, those of objects within behind a dot.
func keys(o map[string]any) (names []string) {
	for name, v := range o {
		names = append(names, name)
		if inner, ok := v.(map[string]any); ok {
			for _, k := range keys(inner) {
				names = append(names, name+"."+k)
			}
		}
	}
	slices.Sort(names)
	return names
}
