//go:build attacks

package attacks

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// attackFromOutside attacks p with a process of its own, and of low priority: attackers
// bring their own processors. What it returns waits for its end, and says
// how many connections ended how.
func (h *house) attackFromOutside(t *testing.T, p *program, a attack) func() map[string]int {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("nice", "-n", "19", exe)
	cmd.Env = append(os.Environ(), envAttack+"="+a.name, envAddr+"="+p.addr, envCA+"="+h.ca, "GOMAXPROCS=2")
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() map[string]int {
		if err := cmd.Wait(); err != nil {
			t.Errorf("the attacker: %v", err)
		}
		ends := map[string]int{}
		for line := range strings.Lines(out.String()) {
			ends[strings.TrimSpace(line)]++
		}
		return ends
	}
}

// What the attacker's process is told.
const (
	envAttack = "ONEPORT_ATTACK"
	envAddr   = "ONEPORT_ATTACK_ADDR"
	envCA     = "ONEPORT_ATTACK_CA"
)

// comeBack is when an attacker that was thrown out comes back; not sooner, for a
// handshake costs both sides a millisecond, and that is not what is looked at here.
const comeBack = 500 * time.Millisecond

func TestMain(m *testing.M) {
	if name := os.Getenv(envAttack); name != "" {
		if err := attackAs(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// attackAs is the attacker's process: a line for each connection says how it ended.
func attackAs(name string) error {
	list := attacks()
	i := slices.IndexFunc(list, func(a attack) bool { return a.name == name })
	if i < 0 {
		return fmt.Errorf("no attack is called %q", name)
	}
	trust, err := trusting(os.Getenv(envCA), "h2")
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	time.AfterFunc(attackFor, func() { close(stop) })
	for {
		fmt.Println(list[i].run(os.Getenv(envAddr), trust, stop))
		select {
		case <-stop:
			return nil
		case <-time.After(comeBack):
		}
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

// run does it until the connection ends, or stop is closed, and says how.
func (a attack) run(addr string, trust *tls.Config, stop <-chan struct{}) string {
	nc, err := tls.Dial("tcp", addr, trust)
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
