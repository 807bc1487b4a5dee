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
	"strings"
	"syscall"

	"github.com/oneport-edge/oneport/certs"
)

// house is where the servers live: the certificates they share, and how to
// start them.
type house struct {
	stderr io.Writer
	exe    string
	dir    string
	roots  *x509.CertPool
	behind *server // the edges; nil until there is one
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
	h := &house{stderr: stderr, exe: exe, dir: dir, roots: x509.NewCertPool()}
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
	if h.behind != nil {
		h.behind.stop()
	}
	_ = os.RemoveAll(h.dir) // a temporary directory, whatever becomes of it
}

// tls is a client's configuration. It has no session cache: every handshake is
// a full one.
func (h *house) tls(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: h.roots, ServerName: "localhost", NextProtos: alpn}
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
	switch name {
	case onHAProxy, onNginx:
		return h.startEdge(ctx, name)
	case onProxy:
		up, err := h.upstream(ctx)
		if err != nil {
			return nil, err
		}
		flags = append(flags, "-upstream", up.addr)
	}
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
	if s.foreign || s.name == onProxy && question == askCPU { // by the same measure as those it is compared with
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
		_ = s.cmd.Wait()
		return
	}
	_ = s.questions.Close()
	_ = s.cmd.Wait() // it ends with its standard input, however its connections stand
}
