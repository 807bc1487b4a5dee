package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// memory is what idle WebSockets cost, in bytes per connection.
type memory struct {
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
	memoryMost = 0.6
	openers    = 8
	warmUps    = 64
	// moments is how often memory is looked at, between half of the sockets and all.
	moments = 10
	// calm is how long nothing happens before.
	calm = 500 * time.Millisecond
)

// memory opens the WebSockets to each server.
func (h *house) memory(ctx context.Context, o *options) (*memory, error) {
	m := &memory{Sockets: o.sockets, Most: memoryMost}
	var err error
	if m.Own, err = h.footprint(ctx, ownWS, o); err != nil {
		return nil, err
	}
	if m.Port, err = h.footprint(ctx, onPort, o); err != nil {
		return nil, err
	}
	m.Ratio = m.Port.RSS / m.Own.RSS
	m.AsItIs = m.Port.RSSAsItIs / m.Own.RSSAsItIs
	m.Met = max(m.Ratio, m.AsItIs) <= m.Most
	return m, nil
}

func (h *house) footprint(ctx context.Context, name string, o *options) (f footprint, err error) {
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
	warm := &crowd{}
	err = warm.open(ctx, h, s.addr, warmUps)
	warm.close()
	if err != nil {
		return f, err
	}
	time.Sleep(calm)
	before, err := s.ask(askFreed)
	if err != nil {
		return f, err
	}

	all := &crowd{}
	defer all.close()
	// How much garbage there is depends on how long ago the last collection
	// was: a mean over some moments says more than the last one.
	var asItIs float64
	for i := range moments {
		some := n * (moments + 1 + i) / (2 * moments)
		if err := all.open(ctx, h, s.addr, some-all.size()); err != nil {
			return f, err
		}
		time.Sleep(calm)
		st, err := s.ask(askMemory)
		if err != nil {
			return f, err
		}
		asItIs += float64(st.RSS-before.RSS) / float64(some) / moments
	}
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

// crowd is a number of WebSockets that do nothing but answer pings.
type crowd struct {
	lost atomic.Int64

	mu    sync.Mutex // guards conns
	conns []*tls.Conn
}

// open opens n, several at a time.
func (c *crowd) open(ctx context.Context, h *house, addr string, n int) error {
	var all sync.WaitGroup
	errs := make([]error, openers)
	var next atomic.Int64
	for i := range openers {
		all.Go(func() {
			for next.Add(1) <= int64(n) && errs[i] == nil {
				errs[i] = c.add(ctx, h, addr)
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

func (c *crowd) add(ctx context.Context, h *house, addr string) error {
	conn, err := dialTLS(ctx, h, addr)
	if err != nil {
		return err
	}
	var r *bufio.Reader
	if r, err = upgrade(conn); err != nil {
		_ = conn.Close()
		return err
	}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	go idleSocket(conn, r, &c.lost) // ends with its connection
	return nil
}

func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.NetConn().Close()
	}
}
