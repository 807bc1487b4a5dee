//go:build suites

package suites

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/certs"
)

// logged is the address that a listener has got.
var logged = regexp.MustCompile(`"msg":"listening","address":"([^"]+)"`)

// startServe runs "oneport serve" with a TLS and a plaintext listener until the
// test ends, and returns their port numbers. text is the file's upstreams and routes.
func startServe(t *testing.T, source *certs.DevSource, text string) (p *process, secure, plaintext string) {
	t.Helper()
	path, err := oneport()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(source.CACert())
	text = strings.TrimSpace(text) + fmt.Sprintf(`
listen: [ { address: "127.0.0.1:0" }, { address: "127.0.0.1:0", tls: off } ]
tls: { certificates: [ { cert: %q, key: %q } ] }
drain: { timeout: 5s, spread: 0s, not_ready: 0s }
log: { access: false }
`, filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	file := filepath.Join(t.TempDir(), "oneport.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startProcess(t, nil, path, "serve", "-c", file)
	var ports []string
	await(t, 20*time.Second, "oneport listens", func() bool {
		ports = nil
		for _, m := range logged.FindAllStringSubmatch(p.out.String(), -1) {
			if _, port, err := net.SplitHostPort(m[1]); err == nil {
				ports = append(ports, port)
			}
		}
		return len(ports) == 2
	})
	return p, ports[0], ports[1]
}
