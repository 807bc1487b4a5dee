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
	"strings"
	"text/template"
	"time"

	"github.com/oneport-edge/oneport/certs"
)

// The edges, which stand on TLS before the same two servers, and those.
const (
	onOneport = "oneport" // the binary: oneport serve
	onNginx   = "nginx"
	onHAProxy = "haproxy"
	onGreeter = "greeter" // grpc.Server, h2c
	onApp     = "app"     // net/http, HTTP/1.1 in plaintext, and WebSocket
)

// program is one that is compared as a proxy.
type program struct {
	name    string
	config  string   // a template of its file, for an address
	args    []string // before the file
	check   []string // the same, to look whether it accepts the file
	version []string
}

// What an edge's file needs to know.
type edgeFile struct {
	Addr, Greeter, App string
	Dir                string // of the certificates, and for what is written
	Port               string // Addr's
	Workers            int
	Curves             string // of OpenSSL, by preference
	Admin, Collector   string
}

// patience is how long an edge may take to start or to end.
const patience = 10 * time.Second

// edges have as many threads or workers as Go has processors, TLS 1.3 with
// AES-128-GCM and no tickets toward clients, connections to the servers that
// are kept, and no logs. What is not said is as it comes.
func edges() []program {
	return []program{
		{onOneport, oneportConfig, []string{"serve", "-c"}, []string{"check", "-c"}, []string{"version"}},
		{onNginx, nginxConfig, []string{"-c"}, []string{"-q", "-t", "-c"}, []string{"-v"}},
		{onHAProxy, haproxyConfig, []string{"-db", "-f"}, []string{"-q", "-c", "-f"}, []string{"-v"}},
	}
}

const oneportConfig = `listen: "{{.Addr}}"
tls:
  certificates: [{ cert: server.crt, key: server.key }]
upstreams:
  greeter: { servers: ["grpc://{{.Greeter}}"] }
  app:     { servers: ["http://{{.App}}"] }
routes:
  - { grpc: "*", to: greeter }
  - { websocket: /ws, to: app }
  - { websocket: /raw, to: app, mode: raw }
  - { path: /, to: app }
log: { level: error, access: false }
`

// nginx buffers as it comes, answers in 8 buffers of a page each, but holds
// bodies of 64 KiB in memory, where it would write a file for each.
const nginxConfig = `daemon off;
worker_processes {{.Workers}};
pid {{.Dir}}/nginx-{{.Port}}.pid;
error_log stderr error;
events { worker_connections 10000; }
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	keepalive_requests 1000000000;
	client_max_body_size 0;
	client_body_buffer_size 128k;
	upstream greeter { server {{.Greeter}}; keepalive 64; keepalive_requests 1000000000; }
	upstream app { server {{.App}}; keepalive 64; keepalive_requests 1000000000; }
	server {
		listen {{.Addr}} ssl http2;
		ssl_certificate {{.Dir}}/server.crt;
		ssl_certificate_key {{.Dir}}/server.key;
		ssl_protocols TLSv1.3;
		ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
		ssl_ecdh_curve {{.Curves}};
		ssl_session_tickets off;
		ssl_session_cache off;
		proxy_http_version 1.1;
		location / { proxy_pass http://app; proxy_set_header Connection ""; }
		location ~ ^/(ws|raw)$ {
			proxy_pass http://app;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection upgrade;
			proxy_read_timeout 1h;
			proxy_send_timeout 1h;
		}
		location /oneport.echo.v1.Echo/ { grpc_pass grpc://greeter; grpc_read_timeout 1h; grpc_send_timeout 1h; }
	}
}
`

// haproxyConfig has HAProxy close connections without a request as the others
// do, where it would write a page about each.
const haproxyConfig = `global
	nbthread {{.Workers}}
	maxconn 5000
	tune.ssl.cachesize 0
defaults
	mode http
	http-reuse always
	option http-ignore-probes
	timeout connect 5s
	timeout client 1h
	timeout server 1h
	timeout tunnel 1h
frontend edge
	bind {{.Addr}} ssl crt {{.Dir}}/haproxy.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves {{.Curves}} no-tls-tickets
	use_backend greeter if { path_beg /oneport.echo.v1.Echo/ }
	default_backend app
backend greeter
	server greeter {{.Greeter}} proto h2
backend app
	server app {{.App}}
`

// startEdge starts an edge before the servers. With profiles oneport is this
// program, which can write them.
func (h *house) startEdge(ctx context.Context, e program, flags []string) (*server, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	file, err := h.configure(ctx, e, addr)
	if err != nil {
		return nil, err
	}
	if isOneport(e.name) && len(flags) > 1 && flags[1] != "" {
		s, err := h.spawn(ctx, e.name, append(flags, "-config", file)...)
		if err == nil {
			h.admins[s.addr] = h.admins[addr]
		}
		return s, err
	}
	cmd := exec.CommandContext(ctx, h.programs[e.name], append(e.args, file)...)
	cmd.Stderr = h.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: e.name, addr: addr, cmd: cmd, foreign: true}
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(10 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen on %s", e.name, addr)
}

// configure writes an edge's file.
func (h *house) configure(ctx context.Context, e program, addr string) (file string, err error) {
	f := edgeFile{Addr: addr, Dir: h.dir, Workers: runtime.GOMAXPROCS(0), Curves: "X25519"}
	if h.hybrid[e.name] {
		f.Curves = "X25519MLKEM768:X25519"
	}
	if e.name == onWatched {
		if f.Admin, err = freePort(); err != nil {
			return "", err
		}
		f.Collector, h.admins[addr] = h.collector, f.Admin
	}
	for _, up := range []struct {
		name string
		addr *string
	}{{onGreeter, &f.Greeter}, {onApp, &f.App}} {
		if h.behind[up.name] == nil {
			s, err := h.spawn(ctx, up.name)
			if err != nil {
				return "", err
			}
			h.behind[up.name] = s
		}
		*up.addr = h.behind[up.name].addr
	}
	_, f.Port, _ = net.SplitHostPort(addr) // its own
	var text bytes.Buffer
	if err := template.Must(template.New(e.name).Parse(e.config)).Execute(&text, f); err != nil {
		return "", err
	}
	file = filepath.Join(h.dir, e.name+"-"+f.Port+".conf")
	return file, os.WriteFile(file, text.Bytes(), 0o600)
}

// oneport builds the binary, unless there is one.
func (h *house) oneport(ctx context.Context, binary string) (string, error) {
	if binary != "" {
		return binary, nil
	}
	binary = filepath.Join(h.dir, "oneport")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nomsgpack", "-ldflags", "-s -w",
		"-o", binary, "github.com/oneport-edge/oneport/cmd/oneport")
	build.Stderr = h.stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("building oneport: %w", err)
	}
	return binary, nil
}

// findEdges looks for the programs, builds oneport if it must, and finds out
// what each edge can do. It gives their versions.
func (h *house) findEdges(ctx context.Context, binary string) (versions []string, err error) {
	binary, err = h.oneport(ctx, binary)
	if err != nil {
		return nil, err
	}
	h.programs[onOneport] = binary
	for _, name := range []string{onNginx, onHAProxy} {
		if h.programs[name], err = lookPath(name); err != nil {
			return nil, fmt.Errorf("%w; the comparison needs both: apt-get install nginx haproxy (Debian, Ubuntu), dnf install nginx haproxy (Fedora)", err)
		}
	}
	if err := joinPEM(h.dir); err != nil {
		return nil, err
	}
	// As root nginx's workers are somebody else, and write their files here. Keys are readable by their owner alone.
	if err := os.Chmod(h.dir, 0o711); err != nil {
		return nil, err
	}
	for _, e := range edges() {
		out, err := exec.CommandContext(ctx, h.programs[e.name], e.version...).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", e.name, err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		versions = append(versions, line)
		if err := h.try(ctx, e); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// try looks whether an edge takes its file, with X25519MLKEM768 or without.
func (h *house) try(ctx context.Context, e program) error {
	for _, hybrid := range []bool{true, false} {
		h.hybrid[e.name] = hybrid
		file, err := h.configure(ctx, e, "127.0.0.1:1")
		if err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, h.programs[e.name], append(e.check, file)...).CombinedOutput()
		if err == nil {
			return nil
		}
		if !hybrid {
			return fmt.Errorf("%s: %w: %s", e.name, err, out)
		}
	}
	return nil
}

// lookPath finds a program also where only root's shell looks.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		path, _ = exec.LookPath(filepath.Join(dir, name))
		if path != "" {
			err = nil
		}
	}
	return path, err
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

// errForeign is what a program that is not ours cannot be asked.
var errForeign = errors.New("it cannot be asked that")

// askForeign answers in the place of a program that cannot.
func (s *server) askForeign(question string) (st state, err error) {
	switch question {
	case askGC:
	case askCPU:
		st.CPU, err = cpuOf(s.cmd.Process.Pid)
	case askMemory:
		st.RSS, err = rssOf(s.cmd.Process.Pid)
	default:
		err = fmt.Errorf("%s: %s: %w", s.name, question, errForeign)
	}
	return st, err
}
