package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oneport-edge/oneport/certs"
)

// house is where the servers live: the certificates they share, and how to
// start them.
type house struct {
	stderr   io.Writer
	exe      string
	dir      string
	roots    *x509.CertPool
	behind   map[string]*server // the edges, by name; empty until there is one
	programs map[string]string  // the edges, by name
	hybrid   map[string]bool    // edges that can do X25519MLKEM768
	// curves, if there are any, are all that clients offer; then they insist on one of them, on TLS 1.3 and on AES-128-GCM.
	curves []tls.CurveID
	// token is what clients bring as their Authorization; "" is one that nobody looks at.
	token string
	// collector is where spans go; "" until there is one. admins are the edges' admin ports, by address.
	collector string
	admins    map[string]string
}

func newHouse(stderr io.Writer) (*house, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "oneport-bench-")
	if err != nil {
		return nil, err
	}
	h := &house{stderr: stderr, exe: exe, dir: dir, roots: x509.NewCertPool(), behind: map[string]*server{}, programs: map[string]string{}, hybrid: map[string]bool{}, admins: map[string]string{}}
	source := certs.Dev(dir)
	if err := source.Load(); err != nil {
		h.close()
		return nil, err
	}
	ca, err := os.ReadFile(source.CACert())
	if err != nil {
		h.close()
		return nil, err
	}
	h.roots.AppendCertsFromPEM(ca)
	return h, nil
}

func (h *house) close() {
	for _, s := range h.behind {
		s.stop()
	}
	_ = os.RemoveAll(h.dir) // a temporary directory, whatever becomes of it
}

// tls is a client's configuration. It has no session cache: every handshake is
// a full one.
func (h *house) tls(alpn ...string) *tls.Config {
	c := &tls.Config{RootCAs: h.roots, ServerName: "localhost", NextProtos: alpn}
	if len(h.curves) > 0 {
		c.MinVersion, c.CurvePreferences, c.VerifyConnection = tls.VersionTLS13, h.curves, agreed(h.curves)
	}
	return c
}

// agreed looks whether client and server work equally hard whoever the server is.
func agreed(curves []tls.CurveID) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if s.Version != tls.VersionTLS13 || s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || !slices.Contains(curves, s.CurveID) || s.DidResume {
			return fmt.Errorf("the server chose %s, %s, %v, resumed %t", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.CurveID, s.DidResume)
		}
		return nil
	}
}

// server is a running server process.
type server struct {
	name      string
	addr      string
	cmd       *exec.Cmd
	questions io.WriteCloser
	answers   *bufio.Reader
	foreign   bool // a program that is not ours
}

// start starts a server process and waits until it listens.
func (h *house) start(ctx context.Context, name string, flags ...string) (*server, error) {
	for _, e := range slices.Concat(edges(), guardEdges(), telemetryEdges()) {
		if e.name == name {
			return h.startEdge(ctx, e, flags)
		}
	}
	return h.spawn(ctx, name, flags...)
}

// spawn starts this program again, as a server.
func (h *house) spawn(ctx context.Context, name string, flags ...string) (*server, error) {
	cmd := exec.CommandContext(ctx, h.exe, append([]string{"-serve", name, "-dir", h.dir}, flags...)...)
	cmd.Stderr = h.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: name, cmd: cmd, questions: in, answers: bufio.NewReader(out)}
	addr, err := s.answers.ReadString('\n')
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("server %s: %w", name, err)
	}
	s.addr = strings.TrimSpace(addr)
	return s, nil
}

// ask puts a question to the server.
func (s *server) ask(question string) (state, error) {
	if s.foreign || isOneport(s.name) && question == askCPU { // by the same measure as those it is compared with
		return s.askForeign(question)
	}
	if _, err := io.WriteString(s.questions, question+"\n"); err != nil {
		return state{}, err
	}
	line, err := s.answers.ReadBytes('\n')
	if err != nil {
		return state{}, fmt.Errorf("server %s: %s: %w", s.name, question, err)
	}
	var st state
	if err := json.Unmarshal(line, &st); err != nil {
		return state{}, err
	}
	if st.Err != "" {
		return state{}, errors.New(st.Err)
	}
	return st, nil
}

// stop ends the server; the connections to it break.
func (s *server) stop() {
	if s.foreign {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // nginx's master ends its workers then
		late := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
		_ = s.cmd.Wait()
		late.Stop()
		return
	}
	_ = s.questions.Close()
	_ = s.cmd.Wait() // it ends with its standard input, however its connections stand
}
