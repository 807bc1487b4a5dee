package router_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
)

// A body that is longer than its route takes is refused: before the server hears of it if
// the client says how long it is, and else without its end.
func TestMaxBody(t *testing.T) {
	const most = 100 << 10
	var asked, whole atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, "cut", http.StatusRequestEntityTooLarge)
			return
		}
		whole.Add(1)
		_, _ = fmt.Fprint(w, n)
	})
	ln := localhost(t)
	protos := new(http.Protocols)
	protos.SetHTTP1(true)
	protos.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protos, Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })

	edge := newServer()
	edge.Routes = []router.Route{
		{Path: "/http", To: reach(t, "http://"+ln.Addr().String(), nil), MaxBody: most},
		{Path: "/h2c", To: reach(t, "h2c://"+ln.Addr().String(), nil), MaxBody: most},
		{Path: "/own", Handler: handler, MaxBody: most},
	}
	port := oneporttest.Listen(t, edge)
	for _, unknown := range []bool{false, true} { // the server may hear late of those that are sent in part
		for version, client := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2": port.HTTP2()} {
			for _, path := range []string{"/http", "/h2c", "/own"} {
				for _, c := range []struct{ length, status int }{{0, 200}, {1, 200}, {most, 200}, {most + 1, 413}, {10 * most, 413}} {
					asked.Store(0)
					whole.Store(0)
					what := fmt.Sprintf("%s %s, %d bytes, unknown length: %v", version, path, c.length, unknown)
					status, text := post(t, client, port.URL(path), c.length, unknown)
					if status != c.status || status == 200 && text != fmt.Sprint(c.length) {
						t.Errorf("%s: %d %q, want %d", what, status, text, c.status)
					}
					if c.status == 413 && (whole.Load() != 0 || !unknown && path != "/own" && asked.Load() != 0) {
						t.Errorf("%s: the server was asked %d times, and had a whole body %d times", what, asked.Load(), whole.Load())
					}
				}
			}
		}
	}
}

// post sends a body of that length, which the head says or does not, and gives the answer.
func post(t *testing.T, client *http.Client, url string, length int, unknown bool) (status int, text string) {
	t.Helper()
	var body io.Reader = strings.NewReader(strings.Repeat("x", length))
	if unknown {
		body = io.MultiReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(b)
}
