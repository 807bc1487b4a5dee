//go:build attacks

package attacks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

const (
	attackFor = 10 * time.Second
	attackers = 1 // connections at once
	// An attacker that was thrown out comes back; not sooner, for a handshake
	// costs both sides a millisecond, and that is not what is looked at here.
	comeBack = 500 * time.Millisecond
	// memoryBound is what all of one attack may cost the server.
	memoryBound = 64 << 20
	// quick is a p99 that nobody complains about, whatever it was before: with
	// clients, attackers and servers on two processors.
	quick = 4 * time.Millisecond
)

// attack is what one connection does until it ends, or the time is over.
type attack struct {
	name  string
	codes []frame.Code // what the connection may be ended with; none if it is to stay
	// settings are the client's.
	settings []frame.Setting
	// once is sent at first, again and again after that.
	once  func(c *attacker) []byte
	again func(c *attacker) []byte
	// pause is between two of the latter.
	pause time.Duration
	deaf  bool // nothing is read
}

var calm = []frame.Code{frame.EnhanceYourCalm}

func attacks() []attack {
	get := func(c *attacker, path string) []byte { return c.request(true, "GET", path) }
	return []attack{
		{name: "rapid reset", codes: calm, again: func(c *attacker) []byte {
			return append(get(c, "/api/hello"), frame.AppendReset(nil, c.id, frame.Cancel)...)
		}},
		{name: "rapid reset of gRPC calls", codes: calm, again: func(c *attacker) []byte {
			b := c.request(false, "POST", "/oneport.echo.v1.Echo/Bidi", "content-type", "application/grpc", "te", "trailers")
			return frame.AppendReset(b, c.id, frame.Cancel)
		}},
		{name: "made you reset", codes: calm, again: func(c *attacker) []byte {
			return frame.AppendWindowUpdate(c.request(false, "POST", "/api/echo"), c.id, 0)
		}},
		{name: "CONTINUATION without end", codes: calm, once: func(c *attacker) []byte {
			return frame.Header{Type: frame.Headers, Stream: c.next()}.Append(nil)
		}, again: func(c *attacker) []byte { return frame.Header{Type: frame.Continuation, Stream: c.id}.Append(nil) }},
		{name: "HPACK bomb", again: func(c *attacker) []byte { // answered 431 each time
			fields := []string{}
			for range 3000 {
				fields = append(fields, "bomb", strings.Repeat("x", 3000)) // in the table after the first
			}
			return c.request(true, "GET", "/", fields...)
		}, pause: 10 * time.Millisecond},
		{name: "SETTINGS", codes: calm, again: func(*attacker) []byte { return frame.AppendSettings(nil) }},
		{name: "SETTINGS that change windows", codes: calm, once: func(c *attacker) []byte {
			var b []byte
			for range 50 {
				b = append(b, c.request(false, "POST", "/oneport.echo.v1.Echo/Bidi", "content-type", "application/grpc", "te", "trailers")...)
			}
			return b
		}, again: func(c *attacker) []byte {
			c.n++
			return frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(c.n % 2 * 100000)})
		}},
		{name: "PING", codes: calm, again: func(*attacker) []byte { return frame.AppendPing(nil, false, [8]byte{1}) }},
		{name: "PRIORITY", codes: calm, again: func(c *attacker) []byte {
			return append(frame.Header{Length: 5, Type: frame.Priority, Stream: c.next()}.Append(nil), 0, 0, 0, 0, 1)
		}},
		{name: "empty DATA", codes: calm, once: func(c *attacker) []byte { return c.request(false, "POST", "/api/echo") },
			again: func(c *attacker) []byte { return frame.AppendData(nil, c.id, nil, false) }},
		{name: "tiny window updates", codes: calm, again: func(*attacker) []byte { return frame.AppendWindowUpdate(nil, 0, 1) }},
		{name: "unknown frames", codes: calm, again: func(*attacker) []byte { return frame.Header{Type: 0xbe}.Append(nil) }},
		{name: "GOAWAY", codes: calm, again: func(*attacker) []byte { return frame.AppendGoAway(nil, 0, frame.NoError, "") }},
		{name: "DATA beyond the window", codes: []frame.Code{frame.FlowControlError, frame.EnhanceYourCalm}, once: func(c *attacker) []byte {
			return c.request(false, "POST", "/oneport.echo.v1.Echo/Bidi", "content-type", "application/grpc", "te", "trailers")
		}, again: func(c *attacker) []byte {
			// A message of 1 GiB that never ends, on streams without end.
			return frame.AppendData(c.request(false, "POST", "/oneport.echo.v1.Echo/ClientStream", "content-type", "application/grpc"), c.id, make([]byte, 16<<10), false)
		}},
		{name: "frames too large", codes: []frame.Code{frame.FrameSizeError}, again: func(*attacker) []byte {
			return frame.Header{Length: 1 << 20, Type: frame.Data, Stream: 1}.Append(nil)
		}},
		{name: "no window", settings: []frame.Setting{{ID: frame.InitialWindowSize, Value: 0}}, once: hundred("/demo.js"),
			again: func(*attacker) []byte { return nil }, pause: time.Second},
		{name: "windows of 1", settings: []frame.Setting{{ID: frame.InitialWindowSize, Value: 1}}, once: hundred("/demo.js"),
			again: func(*attacker) []byte { return nil }, pause: time.Second},
		{name: "nothing is read", settings: []frame.Setting{{ID: frame.InitialWindowSize, Value: frame.MaxWindow}}, once: hundred("/demo.js"),
			again: func(*attacker) []byte { return nil }, pause: time.Second, deaf: true},
		{name: "nothing is read, and more is asked for", codes: nil, again: func(c *attacker) []byte { return get(c, "/demo.js") }, deaf: true},
		{name: "slow header block", once: func(c *attacker) []byte {
			return frame.Header{Length: 1000, Type: frame.Headers, Flags: frame.EndHeaders, Stream: c.next()}.Append(nil)
		}, again: func(*attacker) []byte { return []byte{0} }, pause: 100 * time.Millisecond},
		{name: "slow bodies", once: func(c *attacker) []byte {
			var b []byte
			for range 100 {
				b = append(b, c.request(false, "POST", "/api/echo")...)
			}
			return b
		}, again: func(c *attacker) []byte { return frame.AppendData(nil, c.id, []byte{0}, false) }, pause: 100 * time.Millisecond},
		{name: "uploads that stand still", once: func(c *attacker) []byte {
			var b []byte
			for range 100 {
				b = append(b, c.request(false, "POST", "/api/echo")...)
				b = frame.AppendData(b, c.id, make([]byte, 8<<10), false)
			}
			return b
		}, again: func(*attacker) []byte { return nil }, pause: time.Second},
	}
}

func hundred(path string) func(c *attacker) []byte {
	return func(c *attacker) []byte {
		b := frame.AppendWindowUpdate(nil, 0, frame.MaxWindow-frame.DefaultWindow)
		for range 100 {
			b = append(b, c.request(true, "GET", path)...)
		}
		return b
	}
}

func TestAttacks(t *testing.T) {
	h := newHouse(t)
	for _, p := range []*program{h.demo, h.proxy} {
		t.Run(p.name, func(t *testing.T) {
			by := h.bystander(t, p)
			by.measure(2 * time.Second) // warm
			var calmP99 time.Duration
			for range 3 {
				calmP99 = max(calmP99, by.measure(3*time.Second))
			}
			for _, a := range attacks() {
				t.Run(a.name, func(t *testing.T) { h.run(t, p, by, a, calmP99) })
			}
		})
	}
}

// run attacks p with several connections.
func (h *house) run(t *testing.T, p *program, by *bystander, a attack, calmP99 time.Duration) {
	before := h.memory(t)
	stop := make(chan struct{})
	time.AfterFunc(attackFor, func() { close(stop) })
	var all sync.WaitGroup
	var mu sync.Mutex
	ends := map[string]int{}
	for range attackers {
		all.Go(func() {
			for {
				end := h.attack(p, a, stop)
				mu.Lock()
				ends[end]++
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(comeBack):
				}
			}
		})
	}
	most := make(chan int64, 1)
	go func() {
		peak := before
		for {
			select {
			case <-stop:
				most <- peak
				return
			case <-time.After(100 * time.Millisecond):
				peak = max(peak, h.memory(t))
			}
		}
	}()
	p99 := by.measure(attackFor - time.Second)
	all.Wait()
	grown := <-most - before
	ratio := float64(p99) / float64(calmP99)
	t.Logf("p99 %v, %v without (%.2f); memory +%d KiB; connections: %v", p99, calmP99, ratio, grown>>10, ends)
	if ratio > 2 && p99 > quick {
		t.Errorf("a bystander's p99 is %v, without the attack it was %v", p99, calmP99)
	}
	if grown > memoryBound {
		t.Errorf("%d KiB of memory", grown>>10)
	}
	for end := range ends {
		ok := end == stopped || end == cutOff && (a.deaf || a.codes == nil)
		for _, code := range a.codes {
			ok = ok || end == code.String()
		}
		if !ok {
			t.Errorf("connections ended with %q, want %v", end, a.codes)
		}
	}
	if len(a.codes) > 0 && len(ends) == 1 && ends[stopped] > 0 {
		t.Error("no connection was ended")
	}
}

// How a connection ended, if not with GOAWAY.
const (
	stopped = "still open"
	cutOff  = "cut off"
)

// attacker is one connection.
type attacker struct {
	nc  net.Conn
	id  uint32
	n   int
	buf bytes.Buffer
	enc *hpack.Encoder
}

func (c *attacker) next() uint32 {
	if c.id == 0 {
		c.id = 1
	} else {
		c.id += 2
	}
	return c.id
}

// request opens the next stream.
func (c *attacker) request(end bool, method, path string, fields ...string) []byte {
	c.buf.Reset()
	for i, pairs := 0, append([]string{":method", method, ":scheme", "https", ":authority", "localhost", ":path", path}, fields...); i < len(pairs); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return frame.AppendBlock(nil, c.next(), c.buf.Bytes(), end)
}

// attack does it until the connection ends, or stop is closed, and says how.
func (h *house) attack(p *program, a attack, stop <-chan struct{}) string {
	nc, err := tls.Dial("tcp", p.addr, h.tls("h2"))
	if err != nil {
		return err.Error()
	}
	defer nc.Close()
	c := &attacker{nc: nc}
	c.enc = hpack.NewEncoder(&c.buf)
	ended := make(chan string, 1)
	if !a.deaf {
		go func() { ended <- readEnd(nc) }()
	}
	b := append([]byte(frame.Preface), frame.AppendSettings(nil, a.settings...)...)
	b = frame.AppendSettingsAck(b)
	if a.once != nil {
		b = append(b, a.once(c)...)
	}
	for {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := nc.Write(b); err != nil {
			break
		}
		select {
		case <-stop:
			return stopped
		case end := <-ended:
			return end
		default:
		}
		if a.pause > 0 {
			select {
			case <-time.After(a.pause):
			case <-stop:
				return stopped
			}
		}
		b = b[:0]
		for range 16 { // in one record, as an attacker would
			b = append(b, a.again(c)...)
			if a.pause > 0 {
				break
			}
		}
	}
	if a.deaf {
		return cutOff
	}
	select {
	case end := <-ended:
		return end
	case <-time.After(3 * time.Second):
		return "not ended after a failed write"
	}
}

// readEnd reads to the end, and says which code the last GOAWAY had.
func readEnd(nc net.Conn) string {
	end := cutOff
	var head [frame.HeaderLen]byte
	p := make([]byte, 1<<24)
	for {
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return end
		}
		f := frame.Parse(head[:])
		if _, err := io.ReadFull(nc, p[:f.Length]); err != nil {
			return end
		}
		if f.Type == frame.GoAway {
			end = frame.Code(binary.BigEndian.Uint32(p[4:])).String()
		}
	}
}

// house is what is attacked: the demo, and a proxy before another one.
type house struct {
	roots       *x509.CertPool
	demo, proxy *program
	all         []*program
}

type program struct {
	name, addr, plain string
	cmd               *exec.Cmd
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	oneport := filepath.Join(dir, "oneport")
	if out, err := exec.Command("go", "build", "-tags", "nomsgpack", "-o", oneport, "github.com/oneport-edge/oneport/cmd/oneport").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := &house{roots: x509.NewCertPool()}
	h.demo = h.start(t, "in process", oneport, "demo", "--certs", dir, "--access=false", "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0")
	h.proxy = h.start(t, "upstream", oneport, "proxy", "--certs", dir, "--access=false", "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0",
		"--http", "h2c://"+h.demo.plain, "--grpc", h.demo.plain)
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !h.roots.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	return h
}

var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

func (h *house) start(t *testing.T, name, path string, args ...string) *program {
	t.Helper()
	p := &program{name: name, cmd: exec.Command(path, args...)}
	log := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = f
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
		_ = f.Close()
	})
	for range 1000 {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if m := listening.FindAllStringSubmatch(string(text), -1); len(m) == 2 {
			p.addr, p.plain = m[0][1], m[1][1]
			h.all = append(h.all, p)
			return p
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not start", name)
	return nil
}

func (h *house) tls(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: h.roots, ServerName: "localhost", NextProtos: alpn}
}

// memory is what all servers have resident.
func (h *house) memory(t *testing.T) (sum int64) {
	for _, p := range h.all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			t.Error(err)
			return 0
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					t.Error(err)
				}
				sum += kb << 10
			}
		}
	}
	return sum
}

// bystander is an honest client with a REST and a gRPC connection.
type bystander struct {
	t    *testing.T
	web  *http.Client
	url  string
	echo echov1.EchoClient
}

func (h *house) bystander(t *testing.T, p *program) *bystander {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: h.tls(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(credentials.NewTLS(h.tls("h2"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return &bystander{t, &http.Client{Transport: transport}, "https://" + p.addr + "/api/hello", echov1.NewEchoClient(cc)}
}

// measure calls for that long, a few hundred times a second, and returns the 99th percentile.
func (b *bystander) measure(d time.Duration) time.Duration {
	var all []time.Duration
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for tick := time.NewTicker(4 * time.Millisecond); ; <-tick.C {
		if ctx.Err() != nil {
			tick.Stop()
			break
		}
		begun := time.Now()
		res, err := b.web.Get(b.url)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		all = append(all, time.Since(begun))
		begun = time.Now()
		_, errRPC := b.echo.Unary(context.Background(), &echov1.UnaryRequest{Message: "bystander"})
		all = append(all, time.Since(begun))
		if err := errors.Join(err, errRPC); err != nil {
			b.t.Errorf("a bystander's call failed: %v", err)
			return time.Hour
		}
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}
