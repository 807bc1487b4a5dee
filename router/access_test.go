package router_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/oneporttest"
)

// lineWriter hands on lines of JSON.
type lineWriter chan []byte

func (w lineWriter) Write(p []byte) (int, error) {
	w <- bytes.Clone(p)
	return len(p), nil
}

// Each call has one line, and no line has a query: tokens travel there.
func TestAccess(t *testing.T) {
	t.Parallel()
	lines := make(lineWriter, 10)
	srv := newServer()
	srv.Access = slog.New(slog.NewJSONHandler(lines, nil))
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("on demand")
		case "/none":
		default:
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "short and stout")
		}
	})
	port := oneporttest.Listen(t, srv)
	for _, c := range []*http.Client{port.HTTP1(), port.HTTP2()} {
		for path, want := range map[string][2]float64{"/pot?token=secret": {418, 15}, "/panic": {500, 22}, "/none": {200, 0}} {
			res, err := c.Get(port.URL(path))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			var text []byte
			select {
			case text = <-lines:
			case <-time.After(10 * time.Second):
				t.Fatalf("no line for %s over %s", path, res.Proto)
			}
			var line map[string]any
			if err := json.Unmarshal(text, &line); err != nil {
				t.Fatal(err)
			}
			path, _, _ := strings.Cut(path, "?")
			if line["path"] != path || line["status"] != want[0] || line["sent"] != want[1] || line["protocol"] != "http" || line["version"] != res.Proto ||
				line["request"] == "" || line["took"] == float64(0) {
				t.Errorf("%s over %s: %s", path, res.Proto, text)
			}
			if (path == "/panic") != (line["err"] == "panic: on demand") {
				t.Errorf("%s: err is %v", path, line["err"])
			}
			if bytes.Contains(text, []byte("secret")) {
				t.Errorf("a token is in the log: %s", text)
			}
		}
	}
	if len(lines) > 0 {
		t.Errorf("a line too many: %s", <-lines)
	}
}
