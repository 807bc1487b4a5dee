package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/certs"
)

// The edges: each stands on TLS before the same server, which speaks HTTP/2 in
// plaintext on a port of its own (onUpstream).
const (
	onProxy    = "proxy"    // oneport
	onHAProxy  = "haproxy"  // Debian's
	onNginx    = "nginx"    // Debian's
	onUpstream = "upstream" // grpc.Server, h2c
)

// haproxyConfig has as many threads as oneport, and no limits that would be in the way.
const haproxyConfig = `# %[5]s
global
	nbthread %[3]d
	maxconn 1000
defaults
	mode http
	timeout connect 5s
	timeout client 1h
	timeout server 1h
frontend edge
	bind %[1]s ssl crt %[4]s/haproxy.pem alpn h2,http/1.1
	default_backend app
backend app
	server app %[2]s proto h2
`

const nginxConfig = `daemon off;
worker_processes %[3]d;
pid %[4]s/nginx-%[5]s.pid;
error_log stderr error;
events { worker_connections 1000; }
http {
	access_log off;
	client_body_temp_path %[4]s/body;
	proxy_temp_path %[4]s/proxy;
	fastcgi_temp_path %[4]s/fastcgi;
	uwsgi_temp_path %[4]s/uwsgi;
	scgi_temp_path %[4]s/scgi;
	keepalive_requests 1000000000;
	client_max_body_size 0;
	upstream app { server %[2]s; keepalive 256; keepalive_requests 1000000000; }
	server {
		listen %[1]s ssl http2;
		ssl_certificate %[4]s/server.crt;
		ssl_certificate_key %[4]s/server.key;
		ssl_protocols TLSv1.2 TLSv1.3;
		location / { grpc_pass grpc://app; grpc_read_timeout 1h; grpc_send_timeout 1h; }
	}
}
`

// startEdge starts a program that is not ours before the upstream.
func (h *house) startEdge(ctx context.Context, name string) (*server, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: install it, or leave the comparison out", err)
	}
	up, err := h.upstream(ctx)
	if err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	config, args := haproxyConfig, []string{"-db", "-f"}
	if name == onNginx {
		config, args = nginxConfig, []string{"-c"}
	} else if err := joinPEM(h.dir); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr) // its own
	file := filepath.Join(h.dir, strings.ReplaceAll(name+addr, ":", "-")+".conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, addr, up.addr, runtime.GOMAXPROCS(0), h.dir, port), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, append(args, file)...)
	cmd.Stderr = h.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: name, addr: addr, cmd: cmd, foreign: true}
	for range 200 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
			return s, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen on %s", name, addr)
}

// upstream is the server behind all edges.
func (h *house) upstream(ctx context.Context) (*server, error) {
	if h.behind == nil {
		s, err := h.start(ctx, onUpstream)
		if err != nil {
			return nil, err
		}
		h.behind = s
	}
	return h.behind, nil
}

// freePort is an address that nobody listens on, as far as one can know.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// joinPEM makes the one file that HAProxy wants.
func joinPEM(dir string) error {
	source := certs.Dev(dir)
	if err := source.Load(); err != nil {
		return err
	}
	crt, err := os.ReadFile(filepath.Join(dir, "server.crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(dir, "server.key"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "haproxy.pem"), append(crt, key...), 0o600)
}

// cpuOf is the CPU time so far of a process and its children, in nanoseconds
// (proc(5), /proc/pid/task/tid/schedstat).
func cpuOf(pid int) (sum int64, err error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		b, err := os.ReadFile(filepath.Join(dir, task.Name(), "schedstat"))
		if err != nil {
			return 0, err
		}
		ran, _, _ := bytes.Cut(b, []byte(" "))
		n, err := strconv.ParseInt(string(ran), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
		children, err := os.ReadFile(filepath.Join(dir, task.Name(), "children"))
		if err != nil {
			return 0, err
		}
		for child := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return 0, err
			}
			n, err := cpuOf(id)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// errForeign is what a program that is not ours cannot be asked.
var errForeign = errors.New("it cannot be asked that")

// askForeign answers in the place of a program that is not ours.
func (s *server) askForeign(question string) (st state, err error) {
	switch question {
	case askGC:
	case askCPU:
		st.CPU, err = cpuOf(s.cmd.Process.Pid)
	default:
		err = fmt.Errorf("%s: %s: %w", s.name, question, errForeign)
	}
	return st, err
}
