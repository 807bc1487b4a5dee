package accesslog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/accesslog"
)

// head is a request's, for observers.
type head http.Header

func (h head) Get(name string) string      { return http.Header(h).Get(name) }
func (h head) Values(name string) []string { return http.Header(h).Values(name) }
func (head) Query() string                 { return "token=secret" }

// call makes a call, observed from its beginning.
func call(o protocols.Observer, protocol protocols.Protocol, path, agent string) *protocols.Call {
	c := new(protocols.Call)
	c.Begin(context.Background(), protocols.NewID(0xab, 1), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	c.Protocol, c.Method, c.Host, c.Path, c.Version = protocol, http.MethodGet, "example.com", path, "HTTP/2.0"
	c.Conn, c.Started = &protocols.Conn{ID: "c-1", Remote: netip.MustParseAddrPort("192.0.2.1:4711")}, time.Now()
	c.Ask(head{"User-Agent": {agent}})
	c.Observe([]protocols.Observer{o})
	c.Ask(nil)
	return c
}

func closed(t testing.TB, l *accesslog.Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
}

// write gives the line of one call in a form.
func write(t testing.TB, form accesslog.Form, path, agent string) string {
	t.Helper()
	var out bytes.Buffer
	l := accesslog.New(accesslog.Options{Form: form, Out: &out})
	c := call(l, protocols.HTTP, path, agent)
	c.Identify(&protocols.Identity{Subject: "alice", Issuer: "https://id.example.com", By: "jwt"})
	c.Goes(&protocols.Destination{Route: "pages", Upstream: "web"})
	c.Finish(protocols.Result{Status: 200, Sent: 5})
	closed(t, l)
	return out.String()
}

// The forms, as docs/tracing.md shows them.
func TestForms(t *testing.T) {
	const (
		request = "00000000000000ab0000000000000001"
		trace   = "4bf92f3577b34da6a3ce929d0e0e4736"
		moment  = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`
	)
	for form, want := range map[accesslog.Form]string{
		accesslog.JSON: `^\{"time":"` + moment + `","level":"INFO","msg":"call","protocol":"http","method":"GET","host":"example.com","path":"/a b",` +
			`"version":"HTTP/2.0","status":200,"sent":5,"took":\d+,"remote":"192.0.2.1:4711","conn":"c-1","request":"` + request + `","trace":"` + trace +
			`","user":"https://id.example.com alice","route":"pages","upstream":"web","agent":"curl/8"\}` + "\n$",
		accesslog.Text: `^time=` + moment + ` level=INFO msg=call protocol=http method=GET host=example.com path="/a b" version=HTTP/2.0 status=200 sent=5 took=\S+ ` +
			`remote=192.0.2.1:4711 conn=c-1 request=` + request + ` trace=` + trace + ` user="https://id.example.com alice" route=pages upstream=web agent=curl/8` + "\n$",
		accesslog.Common: `^192\.0\.2\.1 - https://id\.example\.com\\x20alice \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\\x20b HTTP/2\.0" 200 5 "-" "curl/8" ` +
			`protocol=http host=example\.com took=\d+\.\d{6} conn=c-1 request=` + request + ` trace=` + trace + "\n$",
		accesslog.OTel: `^\{"timestamp":"` + moment + `","severity_text":"INFO","severity_number":9,"body":"call","trace_id":"` + trace + `","attributes":\{` +
			`"network.protocol.name":"http","network.protocol.version":"2.0","oneport.protocol":"http","http.request.method":"GET","url.path":"/a b",` +
			`"http.response.status_code":200,"server.address":"example.com","http.response.body.size":5,"oneport.duration_ns":\d+,"client.address":"192.0.2.1",` +
			`"client.port":4711,"oneport.connection_id":"c-1","oneport.request_id":"` + request + `","enduser.id":"https://id.example.com alice",` +
			`"http.route":"pages","oneport.upstream":"web","user_agent.original":"curl/8"\}\}` + "\n$",
	} {
		if got := write(t, form, "/a b", "curl/8"); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("form %d:\n%swant\n%s", form, got, want)
		}
	}
}

// Every form says why a call was ended.
func TestLinesSayWhy(t *testing.T) {
	for form, want := range map[accesslog.Form]string{
		accesslog.JSON: `"refused":"expired"`, accesslog.Text: " refused=expired", accesslog.Common: " refused=expired", accesslog.OTel: `"oneport.refused":"expired"`,
	} {
		var out bytes.Buffer
		l := accesslog.New(accesslog.Options{Form: form, Out: &out})
		c := call(l, protocols.HTTP, "/", "")
		c.End(&protocols.Refusal{Reason: protocols.ReasonExpired})
		c.Finish(protocols.Result{Status: 401})
		closed(t, l)
		if got := out.String(); !strings.Contains(got, want) {
			t.Errorf("form %d: %s", form, got)
		}
	}
}

// oneLine says what is wrong with a line; "" for nothing.
func oneLine(form accesslog.Form, line, path, agent string) string {
	body, ok := strings.CutSuffix(line, "\n")
	switch {
	case !ok:
		return "no end"
	case !utf8.ValidString(body):
		return "not UTF-8"
	case strings.ContainsFunc(body, unicode.IsControl):
		return "control characters"
	}
	switch form {
	case accesslog.JSON, accesslog.OTel:
		var v struct {
			Path       string         `json:"path"`
			Agent      string         `json:"agent"`
			Attributes map[string]any `json:"attributes"`
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			return err.Error()
		}
		if form == accesslog.OTel {
			v.Path, _ = v.Attributes["url.path"].(string)
			v.Agent, _ = v.Attributes["user_agent.original"].(string)
		}
		if v.Path != strings.ToValidUTF8(path, "\uFFFD") && utf8.ValidString(path) || v.Agent != agent && utf8.ValidString(agent) {
			return "it says something else"
		}
	case accesslog.Common:
		if !common.MatchString(body) {
			return "not of the form"
		}
	case accesslog.Text:
		if strings.Count(unquoted.ReplaceAllString(body, ""), " request=") != 1 {
			return "fields that are none"
		}
	}
	return ""
}

var (
	common   = regexp.MustCompile(`^\S+ - \S+ \[[^]]+\] "GET (?:\\.|[^"\\ ])+ HTTP/2\.0" 200 5 "-" "(?:\\.|[^"\\])*" protocol=http host=\S+ took=\S+ conn=\S+ request=\S+ trace=\S+$`)
	unquoted = regexp.MustCompile(`"(?:\\.|[^"\\])*"`)
)

var hostile = []string{
	"", "/", "/a\nfake request=1", "/\r\n{\"time\":1}", "/\"quoted\"", `/back\slash\`, "/\x00\x1b[31m\x7f", "/\u0085\u2028\u2029\u009b", "/\xff\xc3", "/x=y request=2", "/é🙂", "/ ", `"`, `\`,
}

// Whatever a client sends, a call is one line, which reads as what was sent.
func TestInjection(t *testing.T) {
	for form := accesslog.JSON; form <= accesslog.OTel; form++ {
		for _, path := range hostile {
			for _, agent := range hostile {
				if line := write(t, form, path, agent); oneLine(form, line, path, agent) != "" {
					t.Errorf("form %d, path %q, agent %q: %s:\n%s", form, path, agent, oneLine(form, line, path, agent), line)
				}
			}
		}
	}
}

func FuzzLine(f *testing.F) {
	for i, s := range hostile {
		f.Add(uint8(i), s, hostile[len(hostile)-1-i])
	}
	f.Fuzz(func(t *testing.T, n uint8, path, agent string) {
		form := accesslog.Form(n % 4)
		line := write(t, form, path, agent)
		if why := oneLine(form, line, path, agent); why != "" {
			t.Errorf("form %d, path %q, agent %q: %s:\n%s", form, path, agent, why, line)
		}
	})
}

// blocked is a writer that waits until it is let go.
type blocked struct{ let chan struct{} }

func (b blocked) Write(p []byte) (int, error) {
	<-b.let
	return len(p), nil
}

// No call waits for who does not take its line: what has no room is counted, and said. The
// end waits no longer than it may.
func TestNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		out := blocked{make(chan struct{})}
		l := accesslog.New(accesslog.Options{Out: out, Buffer: 4096, Log: slog.New(slog.NewTextHandler(&log, nil))})
		const n = 1000
		for range n {
			call(l, protocols.HTTP, "/", "").Finish(protocols.Result{Status: 200}) // would hang here
		}
		if got := l.Stats().Dropped; got < n-50 || got >= n {
			t.Errorf("%d of %d dropped", got, n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the end: %v", err)
		}
		close(out.let)
		closed(t, l)
		if st := l.Stats(); st.Written+st.Dropped != n || st.Written == 0 {
			t.Errorf("%+v of %d", st, n)
		}
		if !strings.Contains(log.String(), "lines of the access log are lost") || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("the log says %q", log.String())
		}
	})
}

// full is a disk with room for some bytes.
type full struct {
	bytes.Buffer
	room int
}

var errFull = errors.New("no space left on device")

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	_, _ = f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

// What comes behind a line that could only be written in part begins a line of its own, the counts
// are of lines, and the log says why some are lost.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		out := new(full)
		l := accesslog.New(accesslog.Options{Out: out, Log: slog.New(slog.NewTextHandler(&log, nil))})
		end := func(n int) {
			for range n {
				call(l, protocols.HTTP, "/", "").Finish(protocols.Result{Status: 200})
			}
			time.Sleep(time.Second) // until they are written
			synctest.Wait()
		}
		out.room = 1 << 20
		end(1)
		one := out.Len()
		out.room = one/2 + 1
		end(1) // a half
		end(1) // nothing
		out.room = 1 << 20
		end(1)
		closed(t, l)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 3 || !json.Valid([]byte(lines[0])) || !json.Valid([]byte(lines[2])) {
			t.Errorf("%d lines:\n%s", len(lines), out.String())
		}
		if st := l.Stats(); st.Written != 2 || st.Failed != 2 {
			t.Errorf("%+v", st)
		}
		if !strings.Contains(log.String(), errFull.Error()) {
			t.Errorf("the log says %q", log.String())
		}
	})
}

// Lines of many goroutines come whole, and none is lost with room for all.
func TestLinesAreWhole(t *testing.T) {
	var out bytes.Buffer
	l := accesslog.New(accesslog.Options{Out: &out, Buffer: 64 << 20})
	var wg sync.WaitGroup
	const each = 500
	for range 8 {
		wg.Go(func() {
			for range each {
				call(l, protocols.GRPC, "/a.B/C", "grpc-go").Finish(protocols.Result{})
			}
		})
	}
	wg.Wait()
	closed(t, l)
	n := 0
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not whole: %s", line)
		}
		n++
	}
	if n != 8*each {
		t.Errorf("%d lines, want %d", n, 8*each)
	}
}

// A file that is renamed is made anew.
func TestFileIsRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.log")
	f, err := accesslog.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put := func(s string) {
		t.Helper()
		if _, err := io.WriteString(f, s); err != nil {
			t.Fatal(err)
		}
	}
	put("first\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(10 * time.Second); ; {
		put("x\n")
		if _, err := os.Stat(path); err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("the file is not made anew")
		}
		runtime.Gosched()
	}
	old, _ := os.ReadFile(path + ".1")
	if !strings.HasPrefix(string(old), "first\n") {
		t.Errorf("the old one has %.20q", old)
	}
}

// Lines of other logs say which call they belong to, once.
func TestHandler(t *testing.T) {
	var out strings.Builder
	log := slog.New(accesslog.Handler(slog.NewJSONHandler(&out, nil))).With("part", "x")
	l := accesslog.New(accesslog.Options{Out: io.Discard})
	defer closed(t, l)
	c := call(l, protocols.HTTP, "/", "")
	log.InfoContext(c.Context(), "inside")
	log.InfoContext(c.Context(), "has it", "request", "mine")
	log.Info("outside")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{
		`"msg":"inside","part":"x","request":"` + c.RequestID() + `","conn":"c-1","trace":"4bf92f3577b34da6a3ce929d0e0e4736"}`,
		`"msg":"has it","part":"x","request":"mine","conn":"c-1","trace":"4bf92f3577b34da6a3ce929d0e0e4736"}`,
		`"msg":"outside","part":"x"}`,
	} {
		if !strings.HasSuffix(lines[i], want) {
			t.Errorf("%s\nwant %s", lines[i], want)
		}
	}
}

// A line costs no allocation.
func TestAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector has sync.Pool forget what it is given")
	}
	for form := accesslog.JSON; form <= accesslog.OTel; form++ {
		l := accesslog.New(accesslog.Options{Form: form, Out: io.Discard})
		defer closed(t, l)
		calls := make([]*protocols.Call, 0, 300)
		for range cap(calls) {
			calls = append(calls, call(l, protocols.HTTP, "/a/path", "curl/8.5.0"))
		}
		n := testing.AllocsPerRun(200, func() {
			calls[0].Finish(protocols.Result{Status: 200})
			calls = calls[1:]
		})
		if most := map[accesslog.Form]float64{accesslog.Text: 2}[form]; n > most {
			t.Errorf("form %d: %v allocations for a line, want %v", form, n, most)
		}
	}
}

func BenchmarkLine(b *testing.B) {
	for name, form := range map[string]accesslog.Form{"json": accesslog.JSON, "text": accesslog.Text, "common": accesslog.Common, "otel": accesslog.OTel} {
		b.Run(name, func(b *testing.B) {
			l := accesslog.New(accesslog.Options{Form: form, Out: io.Discard})
			defer closed(b, l)
			b.ReportAllocs()
			for b.Loop() {
				call(l, protocols.HTTP, "/a/path", "curl/8.5.0").Finish(protocols.Result{Status: 200})
			}
		})
	}
	b.Run("none", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(nobody{}, protocols.HTTP, "/a/path", "curl/8.5.0").Finish(protocols.Result{Status: 200})
		}
	})
	b.Run("slog", func(b *testing.B) { // what a line costs by log/slog
		log := slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // what is measured is the handler
		b.ReportAllocs()
		for b.Loop() {
			c := call(nobody{}, protocols.HTTP, "/a/path", "curl/8.5.0")
			c.OnDone(func(res protocols.Result) {
				log.LogAttrs(c.Context(), slog.LevelInfo, "call", slog.String("protocol", c.Protocol.String()), slog.String("method", c.Method),
					slog.String("host", c.Host), slog.String("path", c.Path), slog.String("version", c.Version), slog.Int("status", res.Status),
					slog.Int64("sent", res.Sent), slog.Duration("took", time.Since(c.Started)), slog.String("remote", c.Conn.Remote.String()),
					slog.String("conn", c.Conn.ID), slog.String("request", c.RequestID()))
			})
			c.Finish(protocols.Result{Status: 200})
		}
	})
}

type nobody struct{}

func (nobody) Begin(*protocols.Call) {}

func (nobody) End(*protocols.Call, protocols.Result) {}

// Who reads a log sees its characters in the order that they have.
func TestDirectionOfText(t *testing.T) {
	for form := range accesslog.OTel + 1 {
		line := write(t, form, "/\u202egpj.exe\u2066", "\u200f")
		if strings.ContainsAny(line, "\u202e\u2066\u200f") {
			t.Errorf("form %d: %q", form, line)
		}
	}
}

// A file that cannot be made anew gets its lines where it is, and the log says so.
func TestFileCannotBeMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		was, is := filepath.Join(dir, "was"), filepath.Join(dir, "is")
		if err := os.Mkdir(was, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := accesslog.OpenFile(filepath.Join(was, "calls.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := os.Rename(was, is); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		l := accesslog.New(accesslog.Options{Out: f, Log: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(2 * time.Second) // of the bubble: it looks again
		call(l, protocols.HTTP, "/", "").Finish(protocols.Result{Status: 200})
		closed(t, l)
		if st := l.Stats(); st.Written != 1 || st.Failed != 0 {
			t.Errorf("%+v", st)
		}
		if b, err := os.ReadFile(filepath.Join(is, "calls.log")); err != nil || !bytes.HasSuffix(b, []byte("}\n")) {
			t.Errorf("%q, %v", b, err)
		}
		if !strings.Contains(log.String(), "no such file") {
			t.Errorf("the log says %q", log.String())
		}
	})
}
