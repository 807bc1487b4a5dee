//go:build faults

package faults

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// house is three servers, and what stands before them.
type house struct {
	t                *testing.T // programs outlive subtests
	dir, oneport, ca string
	servers          [3]*program
}

// program is a process of oneport, which is started at the same address each time.
type program struct {
	path   string
	args   func(addr string) []string
	addr   string
	cmd    *exec.Cmd
	log    *log
	slowed chan struct{}
	work   sync.WaitGroup
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	h.build(t)
	for i := range h.servers {
		h.servers[i] = &program{path: h.oneport, args: func(addr string) []string {
			return []string{"demo", "--certs", h.dir, "--access=false", "--listen", "127.0.0.1:0", "--plaintext", addr}
		}}
		h.servers[i].start(t)
	}
	return h
}

// build makes the binary, and certificates.
func (h *house) build(t *testing.T) {
	t.Helper()
	h.oneport, h.ca = filepath.Join(h.dir, "oneport"), filepath.Join(h.dir, "ca.crt")
	if out, err := exec.Command("go", "build", "-tags", "nomsgpack", "-o", h.oneport, "github.com/oneport-edge/oneport/cmd/oneport").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(h.oneport, "certs", "--out", h.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// edge starts what stands before the servers.
func (h *house) edge(t *testing.T, file string) *program {
	t.Helper()
	p := &program{path: h.oneport, args: func(string) []string { return []string{"serve", "-c", file} }}
	p.start(t)
	return p
}

var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

// start starts the program, and waits until it listens.
func (p *program) start(t *testing.T) {
	t.Helper()
	if p.addr == "" {
		p.addr = "127.0.0.1:0"
	}
	p.log = &log{came: make(chan struct{}, 1)}
	p.cmd = exec.Command(p.path, p.args(p.addr)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := p.cmd
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	timeout := time.After(10 * time.Second)
	for {
		if all := listening.FindAllStringSubmatch(p.log.String(), -1); len(all) > 0 && (len(all) > 1 || !strings.Contains(strings.Join(cmd.Args, " "), "--plaintext")) {
			p.addr = all[len(all)-1][1]
			return
		}
		select {
		case <-p.log.came:
		case <-timeout:
			t.Fatalf("%v does not listen:\n%s", cmd.Args, p.log)
		}
	}
}

func (p *program) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *program) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	_ = p.cmd.Wait() // it was killed
}

// slow has the program run for a tenth of the time: 10 ms, then stop for 90.
func (p *program) slow(t *testing.T) {
	t.Helper()
	p.slowed = make(chan struct{})
	p.work.Go(func() {
		for {
			_ = p.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(90 * time.Millisecond)
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			select {
			case <-p.slowed:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

func (p *program) fast(*testing.T) {
	close(p.slowed)
	p.work.Wait()
}

// log is what a program has written.
type log struct {
	came chan struct{}

	mu   sync.Mutex // guards what follows
	text bytes.Buffer
	read int
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	select {
	case l.came <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// events are lines of a log.
type events []string

// seen gives what a program has written since the last time.
func (p *program) seen(*testing.T) events {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	text := p.log.text.String()[p.log.read:]
	p.log.read += len(text)
	return strings.Split(text, "\n")
}

const never = "never"

// upstreamOf is where the calls of a kind go.
func upstreamOf(kind string) string {
	if kind == kinds[2] {
		return "upstream=greeter"
	}
	return "upstream=app"
}

// after gives how long after a moment each of some events came.
func (e events) after(kind string, from time.Time, what ...string) (list []time.Duration) {
	for _, line := range e {
		for _, w := range what {
			if !strings.Contains(line, `msg="`+w+`"`) || !strings.Contains(line, upstreamOf(kind)) {
				continue
			}
			stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			at, err := time.Parse("2006-01-02T15:04:05.000Z07:00", stamp)
			if err == nil && !at.Before(from.Add(-time.Millisecond)) {
				list = append(list, at.Sub(from))
			}
		}
	}
	return list
}

func (e events) first(kind string, from time.Time, what ...string) string {
	if list := e.after(kind, from, what...); len(list) > 0 {
		return fmt.Sprintf("%.2f s", list[0].Seconds())
	}
	return never
}

func (e events) last(kind string, from time.Time, what ...string) string {
	if list := e.after(kind, from, what...); len(list) > 0 {
		return fmt.Sprintf("%.2f s", list[len(list)-1].Seconds())
	}
	return never
}
