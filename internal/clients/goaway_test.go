//go:build clients

package clients_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/router"
)

// A drain is announced to HTTP/2 clients before it happens: nghttp sees a first
// GOAWAY that leaves everything open, its call ends well, and the last GOAWAY
// names it as served.
func TestGoAwayTwice(t *testing.T) {
	source := certs.Dev(t.TempDir())
	begun := make(chan struct{})
	srv := &router.Server{Certs: source, Log: slog.New(slog.DiscardHandler), HTTP: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		time.Sleep(time.Second) // the drain begins meanwhile
		_, _ = io.WriteString(w, "served")
	})}
	srv.Addr = "127.0.0.1:0"
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	addrs, err := srv.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe(ctx) }()
	go func() {
		<-begun
		drain()
	}()
	out, err := exec.CommandContext(t.Context(), "nghttp", "-v", "--no-verify-peer", "https://"+addrs[0].String()+"/").CombinedOutput()
	if err != nil {
		t.Fatalf("nghttp: %v\n%s", err, out)
	}
	if err := <-ended; err != nil {
		t.Errorf("the drain: %v", err)
	}
	var lasts []string
	for line := range strings.Lines(string(out)) {
		if _, last, ok := strings.Cut(line, "last_stream_id="); ok {
			lasts = append(lasts, strings.TrimRight(strings.Fields(last)[0], ","))
		}
	}
	// The last one is nghttp's own.
	if len(lasts) < 2 || lasts[0] != "2147483647" || lasts[1] == lasts[0] {
		t.Errorf("GOAWAY frames name the streams %v, want 2147483647 and then the call's\n%s", lasts, out)
	}
	if !strings.Contains(string(out), ":status: 200") || !strings.Contains(string(out), "served") {
		t.Errorf("the call was lost:\n%s", out)
	}
}
