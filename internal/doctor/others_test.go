//go:build clients

package doctor_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/doctor"
)

const nginxFile = `daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s ssl%[3]s;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_certificate %[1]s/server.crt;
		ssl_certificate_key %[1]s/server.key;
		location / { proxy_pass http://%[4]s; }
		location /ws {
			proxy_pass http://%[4]s;
			proxy_http_version 1.1;
			proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection upgrade;
		}
		%[5]s
	}
}
`

const haproxyFile = `global
	maxconn 500
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	timeout http-request 2s
frontend f
	bind %[2]s ssl crt %[1]s/both.pem alpn h2,http/1.1
	use_backend rpc if { req.hdr(content-type) -m beg application/grpc }
	default_backend web
backend web
	server a %[4]s
backend rpc
	server b %[5]s proto h2
`

// behind are a web server with a WebSocket, and a gRPC server.
func behind(t *testing.T) (web, rpc string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			_, _ = io.WriteString(w, "hello\n")
			return
		}
		var up websocket.Upgrader
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	calls := grpc.NewServer()
	healthv1.RegisterHealthServer(calls, health.NewServer())
	ln := bound(t)
	go func() { _ = calls.Serve(ln) }()
	t.Cleanup(calls.Stop)
	return srv.Listener.Addr().String(), ln.Addr().String()
}

// place is a folder with a certificate, and an address that is free.
func place(t *testing.T) (dir, addr string, cas *x509.CertPool) {
	t.Helper()
	ca, err := certs.NewCA("others CA")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for name, content := range map[string][]byte{"server.crt": crt, "server.key": secret, "both.pem": slices.Concat(crt, secret)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln := bound(t)
	addr = ln.Addr().String()
	ln.Close()
	return dir, addr, ca.Pool()
}

// start runs a server until the test ends, and waits for it to listen.
func start(t *testing.T, addr string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", addr); err == nil {
			c.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not listen", command[0])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// nginx and HAProxy, as they are set up as a rule, have no faults: what they do not serve is
// skipped.
func TestOthers(t *testing.T) {
	for _, tt := range []struct {
		name, file, http2, calls string
		command                  []string
		opts                     doctor.Options
		ok, skipped              []string
	}{
		{
			name: "nginx with all", file: nginxFile, http2: " http2", calls: "location /grpc.health.v1.Health { grpc_pass grpc://%s; }", command: []string{"nginx", "-c"},
			opts: doctor.Options{WebSocketPath: "/ws", GRPCMethod: "grpc.health.v1.Health/Check"},
			ok:   []string{"http1", "http2", "mixed-streams", "http2-settings", "grpc-unary", "grpc-trailers", "websocket-upgrade", "websocket-ping", "websocket-origin", "large-header", "plaintext-on-tls"},
		},
		{
			name: "nginx with HTTP/1 alone", file: nginxFile, command: []string{"nginx", "-c"},
			ok:      []string{"http1", "http1-without-alpn", "websocket-ping", "browser-preconnect"},
			skipped: []string{"http2", "http2-settings", "mixed-streams", "grpc-alpn", "grpc-unary", "browser-coalescing"},
		},
		{
			name: "nginx without gRPC", file: nginxFile, http2: " http2", command: []string{"nginx", "-c"},
			ok:      []string{"http2", "grpc-alpn", "grpc-settings-first"},
			skipped: []string{"mixed-streams", "grpc-unary", "grpc-trailers"},
		},
		{
			name: "HAProxy", file: haproxyFile, command: []string{"haproxy", "-db", "-f"},
			opts: doctor.Options{WebSocketPath: "/ws", GRPCMethod: "grpc.health.v1.Health/Check"},
			ok:   []string{"http1", "http2", "mixed-streams", "grpc-unary", "grpc-trailers", "websocket-ping", "extended-connect"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			web, rpc := behind(t)
			dir, addr, cas := place(t)
			calls := rpc
			if tt.file == nginxFile {
				calls = ""
				if tt.calls != "" {
					calls = fmt.Sprintf(tt.calls, rpc)
				}
			}
			file := filepath.Join(dir, "conf")
			text := fmt.Sprintf(tt.file, dir, addr, tt.http2, web, calls)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, addr, append(tt.command, file)...)
			tt.opts.Address, tt.opts.CAs, tt.opts.Timeout = addr, cas, 3*time.Second
			r := examine(t, tt.opts)
			for _, c := range r.Checks {
				// nginx 1.22 does not take trailers of requests, and says so by ending the connection.
				known := c.Name == "http2-trailers" && c.Status == doctor.Warn && tt.file == nginxFile
				if !known && (c.Status == doctor.Fail || c.Status == doctor.Warn) {
					t.Errorf("%s: %s: %s", c.Name, c.Status, c.Saw)
				}
			}
			for _, name := range tt.ok {
				if c := outcome(t, r, name); c.Status != doctor.OK {
					t.Errorf("%s: %s: %s", name, c.Status, c.Saw)
				}
			}
			for _, name := range tt.skipped {
				if c := outcome(t, r, name); c.Status != doctor.Skipped {
					t.Errorf("%s: %s: %s", name, c.Status, c.Saw)
				}
			}
		})
	}
}
