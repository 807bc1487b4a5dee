package console

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/oneporttest"
	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
)

func TestMain(m *testing.M) {
	// A centrifuge node's last goroutines end within a second of its end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge.(*Node).unsubscribeFromBrokerWhenEmpty.func1"))
}

const secret = "0123456789abcdef"

// administered is a port whose requests stay open until the test ends, with its API.
func administered(t *testing.T) (*oneporttest.Port, string) {
	t.Helper()
	srv := &router.Server{Log: slog.New(slog.DiscardHandler)}
	srv.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-srv.Draining():
		}
	})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	admin, err := edge.NewAdmin(edge.AdminOptions{
		Admin: config.Admin{Listen: "127.0.0.1:0", TokenFile: file}, Server: srv, Level: new(slog.LevelVar), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	port := oneporttest.Listen(t, srv)
	if err := admin.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Stop)
	return port, admin.Addrs()[0]
}

func client(t *testing.T, addr, token string) *Client {
	t.Helper()
	c, err := Dial(addr, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// hold has a request open, whose path is what a stranger may choose.
func hold(t *testing.T, port *oneporttest.Port, path string) *tls.Conn {
	t.Helper()
	c := port.DialTLS("http/1.1")
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, oneporttest.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// evil is percent-encoded: an escape that clears the screen, C1's CSI, a turn of direction.
const evil = "/evil%1b%5b2J%c2%9b31m%e2%80%ae"

func dirty(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e })
}

func TestConns(t *testing.T) {
	t.Parallel()
	port, addr := administered(t)
	c := client(t, addr, secret)
	hold(t, port, evil)
	hold(t, port, "/other")

	var b strings.Builder
	if err := c.List(t.Context(), &b, Query{}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); dirty(got) || !strings.Contains(got, "GET /evil\uFFFD[2J\uFFFD31m\uFFFD") || !strings.Contains(got, "2 connections\n") || !strings.Contains(got, "active") {
		t.Errorf("%q", got)
	}
	b.Reset()
	if err := c.List(t.Context(), &b, Query{JSON: true, Sort: "bytes_out", Limit: 1}); err != nil {
		t.Fatal(err)
	}
	var list struct {
		Total       int `json:"total"`
		Connections []struct {
			ID string `json:"id"`
		} `json:"connections"`
	}
	if err := json.Unmarshal([]byte(b.String()), &list); err != nil || dirty(b.String()) || list.Total != 2 || len(list.Connections) != 1 {
		t.Errorf("%v: %q", err, b.String())
	}
	b.Reset()
	if err := c.List(t.Context(), &b, Query{Filter: Filter("state=idle")}); err != nil || !strings.Contains(b.String(), "0 connections") {
		t.Errorf("%v: %q", err, b.String())
	}
	if err := c.List(t.Context(), &b, Query{Sort: "size"}); err == nil || !strings.Contains(err.Error(), "want accepted") {
		t.Error(err)
	}

	// A watch goes on until it is told to end.
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, w, Query{JSON: true}, 500*time.Millisecond) }()
	lines := bufio.NewReader(r)
	for range 2 {
		if line, err := lines.ReadString('\n'); err != nil || !json.Valid([]byte(line)) {
			t.Errorf("%v: %q", err, line)
		}
	}
	cancel()
	r.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Kills need the token, and something to end.
func TestKill(t *testing.T) {
	t.Parallel()
	port, addr := administered(t)
	c := client(t, addr, secret)
	held := hold(t, port, evil)
	var b strings.Builder
	for _, tt := range []struct {
		token, want string
		req         KillRequest
	}{
		{"", "--token-file", KillRequest{ID: "x"}},
		{"somebody else's token", "--token-file", KillRequest{ID: "x"}},
		{secret, "there is no connection", KillRequest{ID: "x\x1b[2J"}},
		{secret, "cannot revoke", KillRequest{Issuer: "i", Subject: "s", Revoke: time.Hour}},
	} {
		if err := client(t, addr, tt.token).Kill(t.Context(), &b, tt.req); err == nil || !strings.Contains(err.Error(), tt.want) || dirty(err.Error()) {
			t.Errorf("%+v: %v, want %s", tt, err, tt.want)
		}
	}
	b.Reset()
	res, err := c.api.ListConnections(t.Context(), new(adminv1.ListConnectionsRequest))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), &b, KillRequest{ID: res.GetConnections()[0].GetId()}); err != nil || b.String() != "1 connections cut off, 0 calls ended\n" {
		t.Errorf("%v: %q", err, b.String())
	}
	_ = held.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(held); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still there")
	}
	if err := c.Kill(t.Context(), &b, KillRequest{Subject: "nobody"}); err != nil {
		t.Error(err)
	}
	if err := c.Unrevoke(t.Context(), &b, "i", "s"); err == nil || !strings.Contains(err.Error(), "does not have that") {
		t.Error(err)
	}
	if err := client(t, "127.0.0.1:1", "").List(t.Context(), &b, Query{}); err == nil || !strings.Contains(err.Error(), "there is no admin API at 127.0.0.1:1") {
		t.Error(err)
	}
	if _, err := Dial("9901", ""); err == nil {
		t.Error("an address without a port is taken")
	}
}

func TestTopOnce(t *testing.T) {
	t.Parallel()
	port, addr := administered(t)
	hold(t, port, evil)
	hold(t, port, "/quiet")
	var b bytes.Buffer
	if err := client(t, addr, "").Top(t.Context(), TopOptions{Out: &b, Once: true, Filter: "evil", Every: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"oneport ", "2 connections: 2 active", "PROTOCOL", "http ", "OUT/S", "GET /evil\uFFFD"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not there: %s", want, got)
		}
	}
	if dirty(got) || strings.Contains(got, "/quiet") {
		t.Errorf("%q", got)
	}
	if err := client(t, "127.0.0.1:1", "").Top(t.Context(), TopOptions{Out: &b}); err == nil {
		t.Error("nobody is there, and it says nothing")
	}
}

// screens collects what is drawn, and says when a text has been.
type screens struct {
	to chan string
}

func (s *screens) Write(p []byte) (int, error) {
	s.to <- string(p)
	return len(p), nil
}

// until reads screens until one has a text.
func (s *screens) until(t *testing.T, want string) string {
	t.Helper()
	late := time.After(20 * time.Second)
	last := ""
	for {
		select {
		case last = <-s.to:
			if strings.Contains(last, want) {
				return last
			}
		case <-late:
			t.Fatalf("%q has never come: %q", want, last)
		}
	}
}

// Keys filter, sort and choose, and end it.
func TestTopKeys(t *testing.T) {
	t.Parallel()
	port, addr := administered(t)
	hold(t, port, evil)
	hold(t, port, "/quiet")
	c := client(t, addr, "")
	keys, typed := io.Pipe()
	out := &screens{make(chan string)}
	done := make(chan error, 1)
	go func() {
		err := c.topScreen(t.Context(), keys, out, &view{addr: addr}, 50*time.Millisecond, func() (int, int) { return 100, 30 })
		keys.Close()
		done <- err
	}()
	press := func(s string) {
		go func() { _, _ = typed.Write([]byte(s)) }()
	}
	first := out.until(t, "/quiet")
	if body := strings.NewReplacer(home, "", clearLine, "", clearBelow, "", inverse, "", bold, "", plain, "", "\r\n", "\n").Replace(first); dirty(body) {
		t.Errorf("%q", body)
	}
	if n := strings.Count(first, "\r\n"); n > 29 {
		t.Errorf("%d lines on a screen of 30", n+1)
	}
	press("s")
	out.until(t, "sort: bytes in")
	press("\x1b[B")
	out.until(t, "2 of 2")
	press("/quiex\x7ft\r")
	got := out.until(t, "/ filter: quiet")
	if strings.Contains(got, "evil") {
		t.Errorf("%q", got)
	}
	press("\x1b")
	out.until(t, "/evil")
	press("q")
	for {
		select {
		case <-out.to:
			continue
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}

func TestKeys(t *testing.T) {
	for in, want := range map[string]key{
		"q": 'q', "ä": 'ä', "\x1b": keyEscape, "\x1b[A": keyUp, "\x1bOB": keyDown, "\x1b[5~": keyPageUp, "\x1b[6~": keyPageDown, "\x1b[1;5C": keyOther, "\x1bx": keyOther, "\x03": 3,
	} {
		r := bufio.NewReader(strings.NewReader(in))
		if got, err := readKey(r); err != nil || got != want || r.Buffered() != 0 {
			t.Errorf("%q: %d, %v, want %d; %d bytes are left", in, got, err, want, r.Buffered())
		}
	}
}

func TestQuantile(t *testing.T) {
	bounds := []float64{0.001, 0.01, 0.1}
	was := &adminv1.ProtocolStats{BucketBounds: bounds, BucketCounts: []uint64{100, 100, 100, 100}}
	is := &adminv1.ProtocolStats{BucketBounds: bounds, BucketCounts: []uint64{150, 190, 199, 200}}
	for q, want := range map[float64]time.Duration{0.5: time.Millisecond, 0.9: 10 * time.Millisecond, 0.99: 100 * time.Millisecond, 1: 100 * time.Millisecond} {
		if got, ok := quantile(q, was, is); got != want || !ok {
			t.Errorf("%v: %v, %v, want %v", q, got, ok, want)
		}
	}
	if _, ok := quantile(0.5, is, is); ok {
		t.Error("there is a quantile of no calls")
	}
}

// What comes out is printable, and for JSON it is the same value.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "a b", "\x1b[2J", "\u009b31m", "\u202e", "\xff\xfe", "\U000e0001", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := Clean(s); dirty(strings.ReplaceAll(got, "\n", "\x00")) {
			t.Fatalf("%q", got)
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		text := escaped(b)
		var was, is string
		if dirty(text) || json.Unmarshal(b, &was) != nil || json.Unmarshal([]byte(text), &is) != nil || was != is {
			t.Fatalf("%q became %q", b, text)
		}
	})
}
