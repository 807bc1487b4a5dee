package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// idlers are connections that do nothing, and what they did before.
type idlers struct {
	name string
	own  string  // the server with a port of its own
	most float64 // what the ratio must not exceed
	rest time.Duration
	open func(ctx context.Context, h *house, server, addr string) (*tls.Conn, *bufio.Reader, error)
	hold func(c *tls.Conn, r *bufio.Reader, lost *atomic.Int64)
}

func idle() []idlers {
	return []idlers{
		{"WebSocket", ownWS, 0.6, 0, openSocket, idleSocket},
		{"HTTP/2", ownHTTP, 1, h2Rest, openBoth, idleHTTP2},
	}
}

// h2Rest is how long after its last stream the memory of an HTTP/2 connection
// is looked at. The port lets go of its servers after 10 s.
const h2Rest = 30 * time.Second

// memory is what idle connections cost, in bytes per connection.
type memory struct {
	Name    string    `json:"name"`
	OwnName string    `json:"own_name"`
	Sockets int       `json:"sockets"`
	Own     footprint `json:"own"`
	Port    footprint `json:"port"`
	Ratio   float64   `json:"ratio"`          // of the resident memory, garbage given back
	AsItIs  float64   `json:"ratio_as_it_is"` // of the resident memory as it is
	Most    float64   `json:"most"`           // what neither must exceed
	Met     bool      `json:"met"`
}

// footprint is the growth of a server process by its sockets, per socket.
type footprint struct {
	RSS        float64 `json:"rss"`          // resident memory, garbage given back to the system before and after
	RSSAsItIs  float64 `json:"rss_as_it_is"` // resident memory as it stands, garbage included
	Heap       float64 `json:"heap"`         // HeapInuse, of the same moment as RSS
	Stack      float64 `json:"stack"`        // StackInuse, of the same moment as RSS
	Goroutines float64 `json:"goroutines"`
}

const (
	openers = 8
	warmUps = 64
	// moments is how often memory is looked at, between half of the sockets and all.
	moments = 10
	// calm is how long nothing happens before.
	calm = 500 * time.Millisecond
)

// memory opens the connections to each server.
func (h *house) memory(ctx context.Context, k idlers, o *options) (*memory, error) {
	m := &memory{Name: k.name, OwnName: k.own, Sockets: o.sockets, Most: k.most}
	var err error
	if m.Own, err = h.footprint(ctx, k, k.own, o); err != nil {
		return nil, err
	}
	if m.Port, err = h.footprint(ctx, k, onPort, o); err != nil {
		return nil, err
	}
	m.Ratio = m.Port.RSS / m.Own.RSS
	m.AsItIs = m.Port.RSSAsItIs / m.Own.RSSAsItIs
	m.Met = max(m.Ratio, m.AsItIs) <= m.Most
	return m, nil
}

func (h *house) footprint(ctx context.Context, k idlers, name string, o *options) (f footprint, err error) {
	n := o.sockets
	var flags []string
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return f, err
		}
		flags = []string{"-heap", "-profile", o.profile}
	}
	s, err := h.start(ctx, name, flags...)
	if err != nil {
		return f, err
	}
	defer s.stop()
	// A few first, so that what a server needs once is there before.
	warm := &crowd{idlers: k, house: h, server: s}
	err = warm.open(ctx, warmUps)
	warm.close()
	if err != nil {
		return f, err
	}
	time.Sleep(calm)
	before, err := s.ask(askFreed)
	if err != nil {
		return f, err
	}

	all := &crowd{idlers: k, house: h, server: s}
	defer all.close()
	// How much garbage there is depends on how long ago the last collection
	// was: a mean over some moments says more than the last one.
	var asItIs float64
	for i := range moments {
		some := n * (moments + 1 + i) / (2 * moments)
		if err := all.open(ctx, some-all.size()); err != nil {
			return f, err
		}
		time.Sleep(calm)
		st, err := s.ask(askMemory)
		if err != nil {
			return f, err
		}
		asItIs += float64(st.RSS-before.RSS) / float64(some) / moments
	}
	time.Sleep(k.rest)
	after, err := s.ask(askFreed)
	if err != nil {
		return f, err
	}
	if lost := all.lost.Load(); lost > 0 {
		return f, fmt.Errorf("%d of %d sockets were lost", lost, n)
	}
	if o.profile != "" {
		if _, err := s.ask(askHeap); err != nil {
			return f, err
		}
	}
	each := func(a, b int64) float64 { return float64(a-b) / float64(n) }
	return footprint{
		RSS:        each(after.RSS, before.RSS),
		RSSAsItIs:  asItIs,
		Heap:       each(after.Heap, before.Heap),
		Stack:      each(after.Stack, before.Stack),
		Goroutines: each(int64(after.Goroutines), int64(before.Goroutines)),
	}, nil
}

// crowd is a number of connections that do nothing but stay.
type crowd struct {
	idlers
	house  *house
	server *server
	lost   atomic.Int64

	mu    sync.Mutex // guards conns
	conns []*tls.Conn
}

// open opens n, several at a time.
func (c *crowd) open(ctx context.Context, n int) error {
	var all sync.WaitGroup
	errs := make([]error, openers)
	var next atomic.Int64
	for i := range openers {
		all.Go(func() {
			for next.Add(1) <= int64(n) && errs[i] == nil {
				errs[i] = c.add(ctx)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

func (c *crowd) add(ctx context.Context) error {
	conn, r, err := c.idlers.open(ctx, c.house, c.server.name, c.server.addr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	go c.hold(conn, r, &c.lost) // ends with its connection
	return nil
}

func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.NetConn().Close()
	}
}

func openSocket(ctx context.Context, h *house, _, addr string) (*tls.Conn, *bufio.Reader, error) {
	conn, err := dialTLS(ctx, h, addr)
	if err != nil {
		return nil, nil, err
	}
	r, err := upgrade(conn, "/ws", "")
	if err != nil {
		_ = conn.Close()
	}
	return conn, r, err
}

// openBoth opens an HTTP/2 connection and uses REST on it and, on the port, gRPC.
func openBoth(ctx context.Context, h *house, server, addr string) (*tls.Conn, *bufio.Reader, error) {
	c, err := dialTLS(ctx, h, addr, "h2")
	if err != nil {
		return nil, nil, err
	}
	first := newHTTP2(c, h.authorization(), "GET", "/api/hello", "application/json", "", helloAnswer)
	first.greet()
	if err := first.do(1); err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	if server == onPort {
		msg := grpcFrame()
		second := newHTTP2(c, h.authorization(), "POST", "/oneport.echo.v1.Echo/Unary", "application/grpc", msg, msg)
		second.r, second.next = first.r, first.next
		if err := second.do(1); err != nil {
			_ = c.Close()
			return nil, nil, err
		}
	}
	return c, first.r, nil
}

// idleHTTP2 answers nothing: there is no PING in the time it takes.
func idleHTTP2(c *tls.Conn, r *bufio.Reader, lost *atomic.Int64) {
	defer c.Close()
	_, _ = io.Copy(io.Discard, r)
	lost.Add(1)
}
