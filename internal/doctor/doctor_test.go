package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/doctor"
	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/internal/textbook"
	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols/rest"
)

func TestMain(m *testing.M) {
	rest.Quiet()
	// A centrifuge node's last goroutines end within a second of its end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge.(*Node).unsubscribeFromBrokerWhenEmpty.func1"))
}

// bound listens on loopback.
func bound(t *testing.T) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func examine(t *testing.T, opts doctor.Options) *doctor.Report {
	t.Helper()
	r, err := doctor.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Text())
	return r
}

// outcome gives a check by its name.
func outcome(t *testing.T, r *doctor.Report, name string) doctor.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no check %q", name)
	return doctor.Check{}
}

// The port itself is well.
func TestDemo(t *testing.T) {
	t.Parallel()
	srv, err := edge.Demo(edge.DemoOptions{CertDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.Certs, srv.ClientAuth = nil, certs.ClientAuth{}
	srv.Limits.PreRoute = time.Second
	port := oneporttest.Listen(t, srv)
	r := examine(t, doctor.Options{
		Address: port.Addr().String(), ServerName: oneporttest.Name, CAs: port.CA(), Timeout: 4 * time.Second, Patience: 3 * time.Second,
		WebSocketPath: "/ws", GRPCMethod: "oneport.echo.v1.Echo/Unary",
	})
	for _, c := range r.Checks {
		if c.Status != doctor.OK {
			t.Errorf("%s: %s: %s", c.Name, c.Status, c.Saw)
		}
	}
	page, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## The checks")
	for _, c := range r.Checks {
		if !strings.Contains(table, "`"+c.Name+"`") {
			t.Errorf("docs/doctor.md does not explain `%s`", c.Name)
		}
	}
	if len(r.Checks) < 30 {
		t.Errorf("%d checks", len(r.Checks))
	}
}

// A textbook program's faults are found, each by its name.
func TestTextbook(t *testing.T) {
	t.Parallel()
	ca, err := certs.NewCA("textbook CA")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		variant textbook.Variant
		faults  map[string]string // what is seen, by the name of the check
		fine    []string
	}{
		{
			"as in tutorials",
			textbook.Variant{},
			map[string]string{
				"scheme":            "knows nothing of TLS",
				"http2":             "it answers in HTTP/1 to HTTP/2",
				"mixed-streams":     "415",
				"silent-client":     "still has its connection",
				"silent-tls-client": "still has its connection",
			},
			[]string{"http1", "http1-without-alpn", "silent-neighbours", "websocket-upgrade", "websocket-ping", "grpc-unary", "grpc-trailers", "certificate-chain"},
		},
		{
			"with HTTP/2 for REST",
			textbook.Variant{HTTP2: true},
			map[string]string{
				"scheme":         "knows nothing of TLS",
				"http2-settings": "SETTINGS frames before the first answer: first an empty one",
				"mixed-streams":  "415",
			},
			[]string{"http1", "grpc-settings-first"},
		},
		{
			"without writers",
			textbook.Variant{NoWriters: true, HTTP2: true},
			map[string]string{"grpc-settings-first": "sends no SETTINGS", "scheme": "", "mixed-streams": "415"},
			[]string{"http2", "http2-settings"},
		},
		{
			"without ALPN",
			textbook.Variant{NoALPN: true},
			map[string]string{"grpc-alpn": "does not say so in ALPN"},
			[]string{"http1"},
		},
		{
			"handshakes where connections are accepted",
			textbook.Variant{HandshakeInAccept: true},
			map[string]string{"silent-neighbours": "beside 16 silent clients another one gets no answer"},
			[]string{"http1", "tls", "http1-without-alpn"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ln := bound(t)
			srv := textbook.Serve(ln, cert, tt.variant)
			t.Cleanup(srv.Close)
			r := examine(t, doctor.Options{Address: ln.Addr().String(), CAs: ca.Pool(), Timeout: 3 * time.Second, Patience: 2 * time.Second})
			for name, want := range tt.faults {
				if c := outcome(t, r, name); c.Status != doctor.Fail || !strings.Contains(c.Saw, want) || c.Why == "" {
					t.Errorf("%s: %s: %s; want a fault that says %q", name, c.Status, c.Saw, want)
				}
			}
			for _, name := range tt.fine {
				if c := outcome(t, r, name); c.Status != doctor.OK {
					t.Errorf("%s: %s: %s", name, c.Status, c.Saw)
				}
			}
		})
	}
}

// Certificates that clients refuse.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, _ := certs.NewCA("one CA")
	other, _ := certs.NewCA("another CA")
	cert, err := ca.Server("example.com")
	if err != nil {
		t.Fatal(err)
	}
	ln := bound(t)
	srv := textbook.Serve(ln, cert, textbook.Variant{})
	t.Cleanup(srv.Close)
	addr, some := ln.Addr().String(), []string{"no-alpn"}
	for _, tt := range []struct {
		opts         doctor.Options
		chain, names doctor.Status
	}{
		{doctor.Options{CAs: ca.Pool(), ServerName: "example.com"}, doctor.OK, doctor.OK},
		{doctor.Options{CAs: other.Pool(), ServerName: "example.com"}, doctor.Fail, doctor.OK},
		{doctor.Options{CAs: ca.Pool(), ServerName: "example.org"}, doctor.OK, doctor.Fail},
		{doctor.Options{Insecure: true}, doctor.Skipped, doctor.Warn},
	} {
		tt.opts.Address, tt.opts.From = addr, some
		r := examine(t, tt.opts)
		if got := fmt.Sprint(outcome(t, r, "certificate-chain").Status, outcome(t, r, "certificate-names").Status); got != fmt.Sprint(tt.chain, tt.names) {
			t.Errorf("%+v: %s, want %s, %s", tt.opts, got, tt.chain, tt.names)
		}
		if outcome(t, r, "http1-without-alpn").Status != doctor.OK {
			t.Error("a bad certificate keeps other checks from being made")
		}
	}
}

// What is no server, and what is no TLS.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	ln := bound(t)
	addr := ln.Addr().String()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 \x1b[2Jmail.example\r\n"))
			c.Close()
		}
	}()
	r := examine(t, doctor.Options{Address: addr})
	if c := outcome(t, r, "tls"); c.Status != doctor.Fail {
		t.Errorf("%+v", c)
	}
	if r.Count(doctor.Skipped) != len(r.Checks)-1 {
		t.Errorf("%d of %d skipped", r.Count(doctor.Skipped), len(r.Checks))
	}
	ln.Close()
	if _, err := doctor.Run(t.Context(), doctor.Options{Address: addr}); !errors.Is(err, doctor.ErrUnreachable) {
		t.Error(err)
	}
	for _, opts := range []doctor.Options{
		{Address: "example.com"},
		{Address: ":443"},
		{Address: addr, From: []string{"lynx"}},
		{Address: addr, Path: "/a b"},
		{Address: addr, Path: "a"},
		{Address: addr, GRPCMethod: "a.B"},
		{Address: addr, ServerName: "a\r\nX: y"},
	} {
		if _, err := doctor.Run(t.Context(), opts); err == nil || errors.Is(err, doctor.ErrUnreachable) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doctor.Run(ctx, doctor.Options{Address: addr}); err == nil {
		t.Error("nobody wants to know any more, and it says nothing")
	}
}
