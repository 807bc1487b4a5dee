package conn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socket is a pipe's end that claims to be an address.
type socket struct {
	net.Conn
	remote net.Addr
}

func (s socket) RemoteAddr() net.Addr { return s.remote }

// from gives both ends of a connection from that address.
func from(t *testing.T, ip string) (server socket, client net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return socket{a, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 1234))}, b
}

func add(t *testing.T, r *conn.Registry, ip string) (*conn.Conn, conn.Reason) {
	t.Helper()
	s, _ := from(t, ip)
	return r.Add(s, conn.Origin{Listener: "test"})
}

func TestBounds(t *testing.T) {
	nobody := []netip.Prefix{}
	for _, tc := range []struct {
		name   string
		bounds conn.Bounds
		ips    []string
		want   []conn.Reason
	}{
		{"total", conn.Bounds{Total: 2}, []string{"127.0.0.1", "127.0.0.1", "127.0.0.2"}, []conn.Reason{0, 0, conn.ReasonOverTotal}},
		{"pre-route", conn.Bounds{PreRoute: 1}, []string{"127.0.0.1", "127.0.0.1"}, []conn.Reason{0, conn.ReasonOverPreRoute}},
		{"per IP", conn.Bounds{PerIP: 1, Exempt: nobody}, []string{"127.0.0.1", "127.0.0.2", "127.0.0.1"}, []conn.Reason{0, 0, conn.ReasonOverPerIP}},
		{"per /64", conn.Bounds{PerIP: 1}, []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"}, []conn.Reason{0, conn.ReasonOverPerIP, 0}},
		{"IPv4 in IPv6", conn.Bounds{PerIP: 1}, []string{"203.0.113.1", "::ffff:203.0.113.1"}, []conn.Reason{0, conn.ReasonOverPerIP}},
		{"private are exempt", conn.Bounds{PerIP: 1}, []string{"10.0.0.1", "10.0.0.1", "::1", "::1", "fe80::1", "fe80::1"}, make([]conn.Reason, 6)},
		{
			"exempt by list",
			conn.Bounds{PerIP: 1, Exempt: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}},
			[]string{"203.0.113.1", "203.0.113.1", "10.0.0.1", "10.0.0.1"},
			[]conn.Reason{0, 0, 0, conn.ReasonOverPerIP},
		},
		{"no bounds", conn.Bounds{Total: -1, PerIP: -1, PreRoute: -1}, []string{"203.0.113.1", "203.0.113.1"}, make([]conn.Reason, 2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := conn.NewRegistry(conn.Options{Bounds: tc.bounds})
			for i, ip := range tc.ips {
				if c, why := add(t, r, ip); why != tc.want[i] || (c == nil) != (why != conn.ReasonDone) {
					t.Errorf("connection %d from %s: %v, want %v", i, ip, why, tc.want[i])
				}
			}
		})
	}
}

// What is closed makes room, in every bound.
func TestCloseMakesRoom(t *testing.T) {
	r := conn.NewRegistry(conn.Options{Bounds: conn.Bounds{Total: 1, PerIP: 1, PreRoute: 1, Exempt: []netip.Prefix{}}})
	for range 3 {
		c, why := add(t, r, "203.0.113.1")
		if c == nil {
			t.Fatal(why)
		}
		if _, why := add(t, r, "203.0.113.1"); why != conn.ReasonOverTotal {
			t.Fatalf("second connection: %v", why)
		}
		c.Close()
		c.Close() // counts once
	}
	if n := r.Stats().Ended[conn.ReasonDone]; n != 3 {
		t.Errorf("%d ended, want 3", n)
	}
	if r.Stats().Accepted != 3 {
		t.Errorf("%d accepted", r.Stats().Accepted)
	}
}

func TestRelayCountsTheClientAndNotTheProxy(t *testing.T) {
	r := conn.NewRegistry(conn.Options{Bounds: conn.Bounds{PerIP: 1, Exempt: []netip.Prefix{}}})
	client, local := netip.MustParseAddrPort("203.0.113.9:555"), netip.MustParseAddrPort("198.51.100.1:443")
	for i, want := range []bool{true, false} {
		s, _ := from(t, "192.0.2.1")
		c, why := r.Add(s, conn.Origin{Relayed: true})
		if c == nil {
			t.Fatalf("the proxy's own address was counted: %v", why)
		}
		if got := r.Relay(c, client, local); got != want {
			t.Errorf("connection %d of one client: %t", i, got)
		}
		if got := c.RemoteAddr().String(); got != client.String() {
			t.Errorf("RemoteAddr %s", got)
		}
		if got := c.LocalAddr().String(); got != local.String() {
			t.Errorf("LocalAddr %s", got)
		}
		if got := c.Facts().Peer.Addr().String(); got != "192.0.2.1" {
			t.Errorf("Peer %s", got)
		}
	}
}

func TestStepsAreLegalCountedAndObserved(t *testing.T) {
	type step struct{ from, to protocols.State }
	var seen []step
	r := conn.NewRegistry(conn.Options{OnStep: func(_ *protocols.Conn, from, to protocols.State) {
		seen = append(seen, step{from, to})
	}})
	c, _ := add(t, r, "127.0.0.1")
	if c.Step(protocols.StateActive) {
		t.Error("opening became active without being routed")
	}
	c.Step(protocols.StateHandshake)
	c.Routed(protocols.StateIdle)
	c.Step(protocols.StateActive)
	if n := r.Stats().Open[protocols.StateActive]; n != 1 || len(r.Stats().Open) != 1 {
		t.Errorf("open: %v", r.Stats().Open)
	}
	r.Listens("quiet")
	at := r.Stats().Listeners
	if l := at[c.Facts().Listener]; len(at) != 2 || l.Accepted != 1 || l.Open[protocols.StateActive] != 1 || at["quiet"].Accepted != 0 {
		t.Errorf("by listener: %v", at)
	}
	c.Step(protocols.StateUpgraded)
	c.Close()
	if c.Step(protocols.StateIdle) || c.Routed(protocols.StateIdle) {
		t.Error("a closed connection went on")
	}
	want := []step{
		{protocols.StateOpening, protocols.StateHandshake},
		{protocols.StateHandshake, protocols.StateIdle},
		{protocols.StateIdle, protocols.StateActive},
		{protocols.StateActive, protocols.StateUpgraded},
		{protocols.StateUpgraded, protocols.StateClosed},
	}
	if len(seen) != len(want) {
		t.Fatalf("saw %v", seen)
	}
	for i := range want {
		if seen[i] != want[i] {
			t.Errorf("step %d: %v, want %v", i, seen[i], want[i])
		}
	}
	if len(r.Stats().Open) != 0 {
		t.Errorf("still open: %v", r.Stats().Open)
	}
}

// Before routing no deadline is later than the absolute one, whoever sets it;
// afterwards none is left.
func TestDeadlineHoldsUntilRouted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := conn.NewRegistry(conn.Options{Deadline: 10 * time.Second})
		s, _ := from(t, "127.0.0.1")
		c, _ := r.Add(s, conn.Origin{})
		start := time.Now()
		for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline} {
			if err := set(time.Time{}); err != nil {
				t.Fatal(err)
			}
			if err := set(start.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := c.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("read ended after %v with %v", time.Since(start), err)
		}
		c.Close()

		s, client := from(t, "127.0.0.1")
		c, _ = r.Add(s, conn.Origin{})
		c.Routed(protocols.StateIdle)
		time.AfterFunc(time.Minute, func() { client.Write([]byte("x")) })
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("a routed connection kept its deadline: %v", err)
		}
		c.Close()
	})
}

func TestReadAhead(t *testing.T) {
	r := conn.NewRegistry(conn.Options{})
	s, client := from(t, "127.0.0.1")
	c, _ := r.Add(s, conn.Origin{})
	go client.Write([]byte("hello, world"))
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	c.Unread(head)
	c.Budget(4)
	c.Record()
	got := make([]byte, 9)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello, wo" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := c.Read(got); !errors.Is(err, conn.ErrReadBudget) {
		t.Errorf("past the budget: %v", err)
	}
	if replay := c.Replay(); string(replay) != "hello, wo" {
		t.Errorf("replay %q", replay)
	}
	c.Routed(protocols.StateIdle)
	rest := make([]byte, 3)
	if _, err := io.ReadFull(c, rest); err != nil || string(rest) != "rld" {
		t.Errorf("routed: read %q, %v", rest, err)
	}
	if in, _ := c.Bytes(); in != 12 {
		t.Errorf("counted %d bytes in, want 12", in)
	}
}

func TestMuteAndOnWrite(t *testing.T) {
	r := conn.NewRegistry(conn.Options{})
	s, client := from(t, "127.0.0.1")
	c, _ := r.Add(s, conn.Origin{})
	fired := 0
	c.OnWrite(func() { fired++ })
	c.Mute()
	if n, err := c.Write([]byte("alert")); n != 5 || err != nil {
		t.Errorf("muted write: %d, %v", n, err)
	}
	c.Unmute()
	go func() {
		c.Write([]byte("real"))
		c.Close()
	}()
	got, _ := io.ReadAll(client)
	if string(got) != "real" || fired != 1 {
		t.Errorf("client got %q, hook ran %d times", got, fired)
	}
	c.OnWrite(func() { fired++ })
	c.Settle()
	c.Settle()
	if fired != 2 {
		t.Errorf("settled hook ran %d times", fired-1)
	}
}

func TestListGetCloseAllEmpty(t *testing.T) {
	r := conn.NewRegistry(conn.Options{IDPrefix: "p-"})
	<-r.Empty()
	var conns []*conn.Conn
	for range 3 {
		c, _ := add(t, r, "127.0.0.1")
		conns = append(conns, c)
	}
	empty := r.Empty()
	list := r.List()
	if len(list) != 3 || list[0] != conns[0] || list[2] != conns[2] {
		t.Errorf("list is not in order of age: %v", list)
	}
	if id := conns[1].Facts().ID; r.Get(id) != conns[1] || id != "p-2" {
		t.Errorf("get %q: %v", id, r.Get(id))
	}
	if n := r.CloseAll(conn.ReasonKilled, func(c *conn.Conn) bool { return c == conns[1] }); n != 1 {
		t.Errorf("closed %d", n)
	}
	select {
	case <-empty:
		t.Error("empty with two open")
	default:
	}
	r.CloseAll(conn.ReasonDrained, nil)
	<-empty
	if st := r.Stats(); st.Ended[conn.ReasonKilled] != 1 || st.Ended[conn.ReasonDrained] != 2 {
		t.Errorf("ended: %v", st.Ended)
	}
}

// Concurrent life of many connections leaves no count behind.
func TestRegistryUnderRace(t *testing.T) {
	r := conn.NewRegistry(conn.Options{Bounds: conn.Bounds{PerIP: 50, Exempt: []netip.Prefix{}}})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				a, b := net.Pipe()
				c, _ := r.Add(socket{a, &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(i%3+1)), Port: 1}}, conn.Origin{})
				if c == nil {
					a.Close()
					b.Close()
					continue
				}
				go c.CloseFor(conn.ReasonKilled)
				c.Step(protocols.StateHandshake)
				c.Routed(protocols.StateIdle)
				c.Step(protocols.StateActive)
				r.List()
				r.Stats()
				c.Close()
				b.Close()
			}
		})
	}
	wg.Wait()
	<-r.Empty()
	st := r.Stats()
	if len(st.Open) != 0 || st.Ended[conn.ReasonKilled]+st.Ended[conn.ReasonDone] != st.Accepted {
		t.Errorf("left over: %+v", st)
	}
}

func TestKernelPaths(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := new(net.Dialer).DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	raw, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r := conn.NewRegistry(conn.Options{})
	c, _ := r.Add(raw, conn.Origin{})
	defer c.Close()
	c.Routed(protocols.StateIdle)
	if _, err := c.SyscallConn(); err != nil {
		t.Error(err)
	}
	if n, err := c.ReadFrom(bytes.NewReader(make([]byte, 1000))); n != 1000 || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(client); len(got) != 1000 || err != nil {
		t.Errorf("client got %d bytes, %v", len(got), err)
	}
	if _, out := c.Bytes(); out != 1000 {
		t.Errorf("counted %d bytes out", out)
	}
	if c.Facts().Remote.String() != client.LocalAddr().String() {
		t.Errorf("remote %v, client %v", c.Facts().Remote, client.LocalAddr())
	}
}
