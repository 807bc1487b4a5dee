package broadcast_test

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/router/broadcast"
	"github.com/oneport-edge/oneport/router/redisstore"
)

// node is a server of a cluster.
type node struct {
	addr string
	t    *testing.T
}

// do sends a command, and gives all lines of its answer.
func (n *node) do(command string) string {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		n.t.Fatal(err)
	}
	in := bufio.NewReader(c)
	first, err := in.ReadString('\n')
	if err != nil {
		n.t.Fatal(err)
	}
	var size int
	if _, err := fmt.Sscanf(first, "$%d", &size); err != nil || size < 0 {
		return first
	}
	b := make([]byte, size)
	for read := 0; read < size; {
		k, err := in.Read(b[read:])
		if err != nil {
			n.t.Fatal(err)
		}
		read += k
	}
	return string(b)
}

// startNode starts a server at a port that was free a moment ago.
func startNode(t *testing.T) *node {
	t.Helper()
	for range 5 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		_ = ln.Close()
		cmd := exec.Command("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "",
			"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(busOf(port)), "--cluster-node-timeout", "5000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(gone)
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-gone
		})
		n := &node{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), t: t}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ended := false; !ended; {
			if c, err := net.Dial("tcp", n.addr); err == nil {
				_ = c.Close()
				return n
			}
			select {
			case <-tick.C:
			case <-gone: // another program has the port
				ended = true
			}
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

// busOf is the port at which a server talks to the others; by default it is 10,000 above its
// own, which may be none.
func busOf(port int) int { return port/2 + 1024 }

// startCluster starts three servers that have the slots between them, and gives their addresses.
func startCluster(t *testing.T) (addrs []string) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if asked {
			t.Fatal(err)
		}
		t.Skip("there is no redis-server here; make test-clients installs it")
	}
	var nodes []*node
	for i := range 3 {
		n := startNode(t)
		first, last := i*5461, (i+1)*5461
		if i == 2 {
			last = 16383
		}
		if i > 0 {
			first++
		}
		if got := n.do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", first, last)); !strings.HasPrefix(got, "+OK") {
			t.Fatal(got)
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(nodes[0].addr)
			p, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.do(fmt.Sprintf("CLUSTER MEET %s %s %d", host, port, busOf(p))); !strings.HasPrefix(got, "+OK") {
				t.Fatal(got)
			}
		}
		nodes = append(nodes, n)
		addrs = append(addrs, n.addr)
	}
	for _, n := range nodes {
		eventually(t, "the cluster does not come together", func() bool { return strings.Contains(n.do("CLUSTER INFO"), "cluster_state:ok") })
	}
	return addrs
}

// Three servers of a cluster, two instances: channels are sharded over all three, and what is
// published at one instance arrives at the other.
func TestCluster(t *testing.T) {
	addrs := startCluster(t)
	redis := &broadcast.Redis{Options: redisstore.Options{URL: "redis+cluster://" + addrs[0] + "?addr=" + addrs[1] + "&addr=" + addrs[2]}}
	a, b := start(t, broadcast.Options{Redis: redis}), start(t, broadcast.Options{Redis: redis})
	connected(t, a.hub)
	connected(t, b.hub)
	for i := range 5 {
		inOrder(t, a, b, fmt.Sprintf("news:%d", i), 5)
		inOrder(t, b, a, fmt.Sprintf("news:other%d", i), 5)
	}
	spread := 0
	for _, addr := range addrs {
		if keys := (&node{addr: addr, t: t}).do("DBSIZE"); !strings.HasPrefix(keys, ":0") {
			spread++
		}
	}
	if spread < 2 {
		t.Errorf("%d of three servers have keys", spread)
	}
}
