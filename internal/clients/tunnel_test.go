//go:build clients

package clients_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

const tunnelFile = `
listen: "127.0.0.1:0"
tls: { certificates: [{ cert: %q, key: %q }] }
upstreams:
  app: { servers: ["http://%s"] }
routes:
  - { websocket: /raw, to: app, mode: raw }
  - { websocket: /aware, to: app }
  - { websocket: /deflate, to: app, compression: true }
  - { websocket: /slow, to: app, message_rate: 20/s }
  - { websocket: /pings, to: app, ping: 500ms, pong: 500ms }
drain: { not_ready: 0s, spread: 0s }
`

// tunnels runs node's WebSockets on both sides of "oneport serve".
func (d *demo) tunnels(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upstream := ln.Addr().String()
	_ = ln.Close() // the script listens there
	file := filepath.Join(t.TempDir(), "oneport.yaml")
	text := fmt.Sprintf(tunnelFile, filepath.Join(d.certs, "server.crt"), filepath.Join(d.certs, "server.key"), upstream)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, d.cmd.Path, []string{"serve", "-c", file}, 1)
	p.env = append(slices.Clone(d.env), "ONEPORT_ADDR="+p.addr, "ONEPORT_UPSTREAM="+upstream, "ONEPORT_PID="+strconv.Itoa(p.cmd.Process.Pid))
	t.Logf("\n%s", p.node(t, "tunnel"))
	p.terminated = true // by its last step
}
