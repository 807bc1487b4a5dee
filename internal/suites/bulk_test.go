//go:build suites

package suites

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/oneport-edge/oneport/certs"
)

// bulkMost is how much more memory "oneport serve" may have at any time while
// much goes through it than it had before.
const bulkMost = min(64<<20, bulkSize/2)

// bulkPause is how long a body waits to be read behind its first MiB: more would
// come in the meantime than may be held.
const bulkPause = 300 * time.Millisecond

// bulk is a body of n bytes that repeat after 65,521: no power of two.
type bulk struct{ n, at int64 }

var bulkBytes = func() []byte {
	b := make([]byte, 2*65521)
	for i := range b {
		b[i] = byte(i % 65521 * 31 >> 3)
	}
	return b
}()

func (r *bulk) Read(p []byte) (int, error) {
	if r.at == r.n {
		return 0, io.EOF
	}
	from := r.at % 65521
	n := copy(p[:min(int64(len(p)), r.n-r.at, 65521)], bulkBytes[from:])
	r.at += int64(n)
	return n, nil
}

// bulkSum reads a body, after a pause behind its beginning, and says what it was.
func bulkSum(r io.Reader) string {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	buf := make([]byte, 64<<10)
	n, err := io.CopyBuffer(writerOf(sum), io.LimitReader(r, 1<<20), buf)
	if err == nil {
		time.Sleep(bulkPause)
		var rest int64
		rest, err = io.CopyBuffer(writerOf(sum), r, buf)
		n += rest
	}
	return fmt.Sprintf("%d %08x %v", n, sum.Sum32(), err)
}

// writerOf hides all but Write, so that the buffer is used.
func writerOf(h hash.Hash) io.Writer { return struct{ io.Writer }{h} }

// bulkServer sends a body to who asks for one, and says what it is sent.
func bulkServer(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", fmt.Sprint(bulkSize))
		}
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, &bulk{n: bulkSize}, make([]byte, 64<<10)) // the client says what it got
		return
	}
	_, _ = io.WriteString(w, bulkSum(r.Body))
}

// memoryOf gives how much memory a process has, and how much it had at most since
// it was asked last, in bytes.
func memoryOf(t *testing.T, p *process) (now, most int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("nothing says how much memory a process has: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		for key, to := range map[string]*int64{"VmRSS": &now, "VmHWM": &most} {
			if v, ok := strings.CutPrefix(line, key+":"); ok {
				if _, err := fmt.Sscan(v, to); err != nil {
					t.Fatal(err)
				}
				*to <<= 10
			}
		}
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	return now, most
}

// Whatever goes through, each way, by both versions of HTTP on both sides, and in a gRPC stream,
// costs what a few buffers do, also when it is taken more slowly than it comes.
func TestBulk(t *testing.T) {
	source := devCerts(t)
	srv := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(srv, interopServer{})
	web := startPlain(t, nil, http.HandlerFunc(bulkServer))
	p, secure, _ := startServe(t, source, fmt.Sprintf(`
upstreams:
  h1: { servers: ["http://127.0.0.1:%s"] }
  h2: { servers: ["h2c://127.0.0.1:%[1]s"] }
  rpc: { servers: ["grpc://127.0.0.1:%s"] }
routes:
  - { grpc: "*", to: rpc }
  - { path: /h1, to: h1 }
  - { path: /h2, to: h2 }
`, web, startGRPC(t, srv)))
	want := bulkSum(&bulk{n: bulkSize})
	if sum := fmt.Sprintf("%d ", bulkSize); !strings.HasPrefix(want, sum) || !strings.HasSuffix(want, " <nil>") {
		t.Fatalf("the body itself is %s", want)
	}
	trust := bulkTrust(t, source)
	first, _ := memoryOf(t, p)
	bounded := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			_, _ = memoryOf(t, p) // what is most from here on
			start := time.Now()
			test(t)
			_, most := memoryOf(t, p)
			t.Logf("%d MiB in %v: %d MiB of memory at first, %d at most", bulkSize>>20, time.Since(start).Round(time.Millisecond), first>>20, most>>20)
			if most > first+bulkMost {
				t.Errorf("memory: %d MiB at first, %d MiB at most", first>>20, most>>20)
			}
		})
	}
	for _, version := range []string{"http/1.1", "h2"} {
		tr := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: version == "h2"}
		tr.TLSClientConfig.NextProtos = []string{version}
		defer tr.CloseIdleConnections()
		for _, path := range []string{"/h1", "/h2"} {
			url := "https://localhost:" + secure + path
			bounded(version+" to "+path+", down", func(t *testing.T) {
				if got := bulkAsk(t, tr, http.MethodGet, url, nil); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
			bounded(version+" to "+path+", up", func(t *testing.T) {
				if got := bulkAsk(t, tr, http.MethodPost, url, &bulk{n: bulkSize}); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	}
	cc, err := grpc.NewClient("localhost:"+secure, grpc.WithTransportCredentials(credentials.NewTLS(trust)))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := testgrpc.NewTestServiceClient(cc)
	bounded("gRPC, down", func(t *testing.T) { bulkDown(t, client) })
	bounded("gRPC, up", func(t *testing.T) { bulkUp(t, client) })
}

// bulkTrust is the configuration of clients that trust a source's CA.
func bulkTrust(t *testing.T, source *certs.DevSource) *tls.Config {
	t.Helper()
	cfg, err := certs.Client(certs.ClientOptions{CAFile: source.CACert()})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// bulkAsk sends a request, and says what its answer was: of GET its sum.
func bulkAsk(t *testing.T, tr *http.Transport, method, url string, body io.Reader) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if method == http.MethodGet {
		return bulkSum(res.Body)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const bulkMessage = 1 << 20

// bulkDown has a server stream of messages of a MiB.
func bulkDown(t *testing.T, client testgrpc.TestServiceClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req := &testgrpc.StreamingOutputCallRequest{}
	for range bulkSize / bulkMessage {
		req.ResponseParameters = append(req.ResponseParameters, &testgrpc.ResponseParameters{Size: bulkMessage})
	}
	stream, err := client.StreamingOutputCall(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	got := int64(0)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			time.Sleep(bulkPause)
		}
		got += int64(len(m.GetPayload().GetBody()))
	}
	if got != bulkSize {
		t.Errorf("got %d bytes, want %d", got, bulkSize)
	}
}

// bulkUp has a client stream of messages of a MiB.
func bulkUp(t *testing.T, client testgrpc.TestServiceClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stream, err := client.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	req := &testgrpc.StreamingInputCallRequest{Payload: payload(bulkMessage)}
	for range bulkSize / bulkMessage {
		if err := stream.Send(req); err != nil {
			_, err = stream.CloseAndRecv()
			t.Fatal(err)
		}
	}
	res, err := stream.CloseAndRecv()
	if err != nil || int64(res.GetAggregatedPayloadSize()) != bulkSize {
		t.Errorf("%v, %v, want %d bytes", res, err, bulkSize)
	}
}
