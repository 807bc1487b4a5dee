package router_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/router"
)

// A server may answer while the request's body is on its way, whatever the versions.
func TestAnswersBeforeTheBody(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex() // HTTP/2 always has it
		_, _ = io.WriteString(w, "early ")
		_ = rc.Flush()
		_, _ = io.Copy(w, r.Body)
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
	for _, scheme := range []string{"http", "h2c"} {
		edge.Routes = append(edge.Routes, router.Route{Path: "/" + scheme, To: reach(t, scheme+"://"+ln.Addr().String(), nil)})
	}
	port := oneporttest.Listen(t, edge)
	for version, client := range map[string]*http.Client{"HTTP/1.1": port.HTTP1(), "HTTP/2": port.HTTP2()} {
		for _, scheme := range []string{"http", "h2c"} {
			body, rest := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/"+scheme), body)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req) // nothing of the body has come
			if err != nil {
				t.Fatalf("%s to %s: %v", version, scheme, err)
			}
			first := make([]byte, len("early "))
			if _, err := io.ReadFull(res.Body, first); err != nil {
				t.Errorf("%s to %s: %q, %v", version, scheme, first, err)
			}
			_, _ = rest.Write([]byte("late"))
			_ = rest.Close()
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || string(b) != "late" {
				t.Errorf("%s to %s: %q and then %q, %v", version, scheme, first, b, err)
			}
		}
	}
}
