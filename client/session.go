package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// errGone is that a connection has ended before a message began to leave.
var errGone = errors.New("client: the connection has ended")

// session is one connection of a socket.
type session struct {
	s      *Socket
	ws     *websocket.Conn
	heard  *heard
	ctx    context.Context // ends with Run's, or the connection
	cancel context.CancelFunc
	turn   chan struct{} // held by who writes
	over   chan struct{} // closed when nothing more comes
	ended  error         // why, once over is closed
	silent atomic.Bool   // the server is dead, and the connection was closed for that
	parked atomic.Bool   // the queue is full, and nothing is read
	broken atomic.Bool   // a write has failed, which the reader may not know yet
	work   sync.WaitGroup
	inband inband
}

// connect tries once, and if that goes well stays until the connection ends.
func (s *Socket) connect(ctx context.Context, p *progress) error {
	shake, cancel := context.WithTimeout(ctx, s.opts.Handshake)
	defer cancel()
	n, err := s.dial(shake, p)
	if err != nil {
		return err
	}
	p.renewed = false
	defer n.stop(p)
	n.ctx, n.cancel = context.WithCancel(ctx)
	n.work.Go(n.read)
	n.work.Go(n.beat)
	n.work.Go(n.refresh)
	if err := n.greet(shake); err != nil {
		return err
	}
	cancel()
	began := time.Now()
	s.serves(n)
	s.set(Event{State: Connected, Try: p.try})
	select {
	case <-n.over:
	case <-ctx.Done():
		s.set(Event{State: Closing})
		n.goodbye()
	}
	s.serves(nil)
	if time.Since(began) >= s.opts.Backoff.Healthy {
		p.try, p.ends = 0, 0
	}
	<-n.over
	return n.ended
}

// dial opens a connection, up to the answer to its handshake.
func (s *Socket) dial(ctx context.Context, p *progress) (*session, error) {
	header := s.opts.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	p.token = ""
	offer := slices.Clone(s.opts.Subprotocols)
	if s.c.tokens.fetch != nil && header.Get("Authorization") == "" {
		token, err := s.c.tokens.renew(ctx, p.stale)
		if err != nil {
			return nil, err
		}
		p.token, p.stale = token, ""
		header.Set("Authorization", "Bearer "+token)
		if !s.opts.NoInBand {
			offer = append(offer, inBandName)
		}
	}
	var raw *heard
	stop := func() bool { return true }
	d := websocket.Dialer{
		Proxy:           s.c.proxy(),
		TLSClientConfig: s.c.tlsFor("http/1.1"),
		Subprotocols:    offer,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dial := new(net.Dialer).DialContext // to a proxy, or Addr
			if s.c.opts.Dial != nil {
				dial = s.c.dialAddr
			}
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			raw = &heard{Conn: conn}
			raw.left.Store(shakeMost)
			stop = context.AfterFunc(ctx, raw.drop) // gorilla looks at the deadline alone
			return raw, nil
		},
	}
	conn, res, err := d.DialContext(ctx, s.c.url("ws", s.target()), header) //nolint:bodyclose // gorilla has read it, and closed the connection
	if !stop() && err == nil {
		raw.drop()
		err = ctx.Err()
	}
	switch {
	case err == nil:
	case errors.Is(err, websocket.ErrBadHandshake):
		body, _ := io.ReadAll(res.Body) // 1,024 bytes that gorilla has read
		return nil, &HandshakeError{Status: res.StatusCode, RetryAfter: retryAfter(res.Header, time.Now()), Body: string(body)}
	case ctx.Err() != nil:
		return nil, fmt.Errorf("client: handshake: %w (%w)", ctx.Err(), err)
	default:
		return nil, fmt.Errorf("client: handshake: %w", err)
	}
	raw.left.Store(-1)
	conn.SetReadLimit(s.opts.ReadLimit)
	n := &session{s: s, ws: conn, heard: raw, turn: make(chan struct{}, 1), over: make(chan struct{})}
	n.inband.begin(p.token)
	return n, nil
}

// shakeMost bounds what a server may say before the end of its handshake, TLS
// and all: neither gorilla nor net/http do.
const shakeMost = 256 << 10

// heard is a connection that counts what comes.
type heard struct {
	net.Conn

	n    atomic.Int64
	left atomic.Int64 // how much may still come; negative is no bound
}

// Read implements net.Conn.
func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.n.Add(int64(n))
	if h.left.Load() >= 0 && h.left.Add(-int64(n)) < 0 {
		return 0, errors.New("client: the handshake is too long")
	}
	return n, err
}

// drop closes it, as often as anybody wants.
func (h *heard) drop() { _ = h.Close() } // nothing is left to do if that fails

// greet says what is to be said first.
func (n *session) greet(ctx context.Context) error {
	if n.s.opts.OnConnect == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	err := n.s.opts.OnConnect(ctx, func(k Kind, p []byte) error { return n.write(ctx, k, p) })
	select {
	case <-n.over: // which is why
		return n.ended
	default:
	}
	if err != nil {
		return fmt.Errorf("client: on connect: %w", err)
	}
	return nil
}

// read hands on what comes, until nothing does.
func (n *session) read() {
	defer n.cancel()
	defer close(n.over)
	for first := true; ; first = false {
		kind, data, err := n.ws.ReadMessage()
		if err == nil && kind == websocket.TextMessage && !utf8.Valid(data) {
			_ = n.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closeInvalidData, ""), time.Now().Add(time.Second))
			err = &CloseError{Code: closeInvalidData, Err: errors.New("client: a text message is not UTF-8")}
		}
		if err != nil {
			n.ended = n.why(err)
			return
		}
		m := Message{Kind: Kind(kind), Data: data}
		if n.own(m, first) || !n.s.take(&m) {
			continue
		}
		select {
		case n.s.queue <- m:
			continue
		default:
		}
		n.parked.Store(true)
		select {
		case n.s.queue <- m:
		case <-n.ctx.Done(): // nobody waits for it any longer
		}
		n.parked.Store(false)
	}
}

// why is err as a *CloseError.
func (n *session) why(err error) error {
	var ours *CloseError
	var theirs *websocket.CloseError
	var network net.Error
	switch {
	case n.silent.Load():
		return &CloseError{Code: closeAbnormal, Err: ErrSilent}
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &theirs) && theirs.Code != closeAbnormal:
		return &CloseError{Code: theirs.Code, Reason: theirs.Text}
	case errors.As(err, &theirs):
		return &CloseError{Code: closeAbnormal, Err: io.ErrUnexpectedEOF}
	case errors.Is(err, websocket.ErrReadLimit):
		return &CloseError{Code: closeTooBig, Err: err}
	case !errors.As(err, &network) && strings.HasPrefix(err.Error(), "websocket: "): // gorilla has no type for it
		return &CloseError{Code: closeProtocol, Err: err}
	}
	return &CloseError{Code: closeAbnormal, Err: err}
}

// beat pings, and closes the connection of a server that is dead.
func (n *session) beat() {
	o := n.s.opts
	if o.Ping < 0 {
		return
	}
	for wait(n.ctx, o.Ping) {
		before := n.heard.n.Load()
		// An error is that a Write is in the way, or that the connection has ended.
		_ = n.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(o.Pong))
		if !wait(n.ctx, o.Pong) {
			return
		}
		if n.heard.n.Load() == before && !n.parked.Load() {
			n.silent.Store(true)
			n.heard.drop()
			return
		}
	}
}

// write sends an application's message; errGone if none of it has left.
func (n *session) write(ctx context.Context, k Kind, p []byte) error {
	if k == Text && n.inband.takes(p) {
		return errors.New(`client: a message that begins with {"oneport": would be taken by the port`)
	}
	return n.send(ctx, k, p)
}

// send is write for all.
func (n *session) send(ctx context.Context, k Kind, p []byte) error {
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-n.over:
		return errGone
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.ctx.Err() != nil || n.broken.Load() {
		return errGone
	}
	_ = n.ws.SetWriteDeadline(time.Now().Add(writeWithin)) // gorilla notes it, and has no error
	switch err := n.ws.WriteMessage(int(k), p); {
	case errors.Is(err, websocket.ErrCloseSent):
		return errGone
	case err != nil:
		n.broken.Store(true)
		n.heard.drop() // part of a frame may have left
		return fmt.Errorf("client: write: %w", err)
	}
	return nil
}

// goodbye closes as RFC 6455 has it: a close frame, and the wait for the server's.
func (n *session) goodbye() {
	t := time.NewTimer(closeWithin)
	defer t.Stop()
	_ = n.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closeNormal, ""), time.Now().Add(closeWithin)) // closed below all the same
	select {
	case <-n.over:
	case <-t.C:
	}
	n.heard.drop()
}

// stop ends the connection and waits for all that belongs to it.
func (n *session) stop(p *progress) {
	n.cancel()
	n.heard.drop()
	n.work.Wait()
	if t := n.inband.token(); t != "" {
		p.token = t
	}
}
