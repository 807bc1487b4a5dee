package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// audience is the subscribers of one server.
type audience struct {
	house  *house
	server *server
	heard  atomic.Int64
	lost   atomic.Int64
	want   atomic.Int64
	done   chan struct{} // has one when heard has reached want

	mu        sync.Mutex // guards what follows
	listeners []*listener
	deaf      []*tls.Conn
}

// listener is one that reads.
type listener struct {
	c    *tls.Conn
	took []time.Duration // from the stamp of each message; its reader's, until all were heard
}

// gather opens n subscribers that read, and some that do not.
func (h *house) gather(ctx context.Context, s *server, n, deaf int) (*audience, error) {
	a := &audience{house: h, server: s, done: make(chan struct{}, 1)}
	var all sync.WaitGroup
	errs := make([]error, openers)
	var next atomic.Int64
	for i := range openers {
		all.Go(func() {
			for k := next.Add(1); k <= int64(n+deaf) && errs[i] == nil; k = next.Add(1) {
				errs[i] = a.add(ctx, k > int64(n))
			}
		})
	}
	all.Wait()
	err := errors.Join(errs...)
	subscriptions := n + deaf
	if s.name == fanStream {
		subscriptions += deaf // they have two channels
	}
	for end := time.Now().Add(patience); err == nil; time.Sleep(10 * time.Millisecond) {
		var st state
		if st, err = s.ask(askClients); st.Clients == subscriptions {
			return a, err
		}
		if time.Now().After(end) {
			err = fmt.Errorf("%d subscriptions, want %d", st.Clients, subscriptions)
		}
	}
	a.close()
	return nil, err
}

func (a *audience) add(ctx context.Context, deaf bool) error {
	c, err := dialTLS(ctx, a.house, a.server.addr)
	if err != nil {
		return err
	}
	path := "/ws?channel=" + fanAll
	switch {
	case a.server.name == fanSDK:
		path = "/ws"
	case deaf:
		path += "&channel=" + fanSlow
	}
	r, err := upgrade(c, path, "")
	if err == nil && a.server.name == fanSDK {
		for _, command := range []string{`{"id":1,"connect":{}}`, `{"id":2,"subscribe":{"channel":"` + fanAll + `"}}`} {
			if err == nil {
				_, err = c.Write(frameOf(finText, command))
			}
		}
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if deaf {
		a.deaf = append(a.deaf, c)
		return nil
	}
	l := &listener{c: c}
	a.listeners = append(a.listeners, l)
	go a.listen(l, r) // ends with its connection
	return nil
}

// listen reads messages until the connection ends.
func (a *audience) listen(l *listener, r *bufio.Reader) {
	payload := make([]byte, 512)
	for {
		n, op, err := frameHead(r)
		if err == nil && n > len(payload) {
			payload = make([]byte, n)
		}
		if err == nil {
			_, err = io.ReadFull(r, payload[:n])
		}
		if err == nil && op == finPing {
			_, err = l.c.Write(frameOf(finPong, string(payload[:n])))
		}
		if err != nil {
			a.lost.Add(1)
			return
		}
		now := time.Now().UnixNano()
		for rest := payload[:n]; op == finText; {
			_, after, ok := bytes.Cut(rest, []byte(stamp))
			if !ok || len(after) < 19 {
				break
			}
			at, err := strconv.ParseInt(string(after[:19]), 10, 64)
			if err != nil {
				break
			}
			l.took = append(l.took, time.Duration(now-at))
			if a.heard.Add(1) == a.want.Load() {
				a.done <- struct{}{}
			}
			rest = after
		}
	}
}

// frameHead reads the head of a server's frame.
func frameHead(r *bufio.Reader) (n int, op byte, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return 0, 0, err
	}
	op, n = b[0], int(b[1])
	switch n {
	case 126:
		_, err = io.ReadFull(r, b[:2])
		n = int(binary.BigEndian.Uint16(b[:]))
	case 127:
		_, err = io.ReadFull(r, b[:8])
		n = int(binary.BigEndian.Uint64(b[:]))
	}
	if n > 1<<20 {
		err = &answerError{strconv.Itoa(n) + " bytes", "a message"}
	}
	return n, op, err
}

// hear has the server say messages to all, and waits until every listener has them.
func (a *audience) hear(messages int) error {
	a.want.Store(a.heard.Load() + int64(messages*len(a.listeners)))
	if _, err := a.server.ask(asking(messages, fanAll, fanSize)); err != nil {
		return err
	}
	late := time.NewTimer(hearWithin)
	defer late.Stop()
	select {
	case <-a.done:
		return nil
	case <-late.C:
		return fmt.Errorf("%d deliveries are missing, %d listeners were lost", a.want.Load()-a.heard.Load(), a.lost.Load())
	}
}

// hearWithin is how long a burst may take.
const hearWithin = 60 * time.Second

// latencies gives what was measured since the last time, in order.
func (a *audience) latencies() (all []time.Duration) {
	for _, l := range a.listeners {
		all = append(all, l.took...)
		l.took = l.took[:0]
	}
	slices.Sort(all)
	return all
}

func (a *audience) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.listeners {
		_ = l.c.NetConn().Close()
	}
	for _, c := range a.deaf {
		_ = c.NetConn().Close()
	}
}
