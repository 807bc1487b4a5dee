//go:build attacks

package attacks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// house is what is attacked: the demo, and a proxy before another one.
type house struct {
	ca          string // the file of it
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
	h := &house{ca: filepath.Join(dir, "ca.crt")}
	h.demo = h.start(t, "in process", oneport, "demo", "--certs", dir, "--access=false", "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0")
	h.proxy = h.start(t, "upstream", oneport, "proxy", "--certs", dir, "--access=false", "--listen", "127.0.0.1:0", "--plaintext", "127.0.0.1:0",
		"--http", "h2c://"+h.demo.plain, "--grpc", h.demo.plain)
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

// trusting returns a client's side of TLS that trusts the CA in a file.
func trusting(ca string, alpn ...string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", ca)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: alpn}, nil
}

func (h *house) tls(t *testing.T, alpn ...string) *tls.Config {
	t.Helper()
	c, err := trusting(h.ca, alpn...)
	if err != nil {
		t.Fatal(err)
	}
	return c
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

// cpu is how long all servers have been running on a processor.
func (h *house) cpu(t *testing.T) (sum time.Duration) {
	for _, p := range h.all {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
		if err != nil {
			t.Error(err)
		}
		for _, task := range tasks {
			text, _ := os.ReadFile(task) // a thread may have ended
			ns, _, _ := strings.Cut(string(text), " ")
			n, _ := strconv.ParseInt(ns, 10, 64)
			sum += time.Duration(n)
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
	transport := &http.Transport{TLSClientConfig: h.tls(t), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(credentials.NewTLS(h.tls(t, "h2"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return &bystander{t, &http.Client{Transport: transport}, "https://" + p.addr + "/api/hello", echov1.NewEchoClient(cc)}
}

// measure calls for that long, a few hundred times a second, and returns how long each took.
func (b *bystander) measure(d time.Duration) (all []time.Duration) {
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
			return []time.Duration{time.Hour}
		}
	}
	return all
}

// p99 is the 99th percentile.
func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}
