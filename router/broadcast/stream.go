package broadcast

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/oneport-edge/oneport/protocols/ws"
)

const (
	// beatEvery is how long a stream may be silent: proxies cut off what is for longer.
	beatEvery = 25 * time.Second
	// writeFor is how long a client may take nothing.
	writeFor = 10 * time.Second
)

// Stream gives channels as Server-Sent Events: GET with "channel" in the query, once for each
// of 1 to 16. The data of an event is JSON:
//
//	event: subscribed
//	data: {"channel":"news:today","subscribed":{"offset":41,"epoch":"xyz","recovered":true}}
//
//	id: 42:xyz
//	data: {"channel":"news:today","offset":42,"data":{"rain":true}}
//
// and of a "join" or "leave" event has who comes or goes. Who comes back with the last id, as
// browsers do, gets what has been missed; without "recovered" some of it may be lost. "since" in the
// query says the same.
//
// Call Drain once the server drains: streams have no end of their own.
func (h *Hub) Stream() http.Handler { return http.HandlerFunc(h.serveStream) }

func (h *Hub) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	f, err := h.asked(r)
	var done func()
	if err == nil {
		done, err = f.open(r.Context())
	}
	if err != nil {
		writeError(w, err)
		return
	}
	defer done()
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would hold events back
	out := &sse{w: http.NewResponseController(w), to: w, at: places{f.channels, make([]Position, len(f.channels))}}
	// Clients that lose a server together come back one after the other.
	out.b = append(out.b, "retry: "+strconv.Itoa(1000+rand.IntN(3000))+"\n\n"...)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		events, err := f.take()
		switch {
		case err != nil:
			return
		case len(events) > 0 || len(out.b) > 0:
			for _, e := range events {
				out.add(e)
			}
			if out.flush() != nil {
				return
			}
		}
		select {
		case <-f.ready:
		case <-beat.C:
			out.b = append(out.b, ":\n\n"...)
		case <-r.Context().Done():
			return
		}
	}
}

// asked reads what a request wants.
func (h *Hub) asked(r *http.Request) (*feed, error) {
	q := r.URL.Query()
	channels := q["channel"]
	at := r.Header.Get("Last-Event-ID") // of a client that comes back by itself
	if at == "" {
		at = q.Get("since")
	}
	since, err := parseSince(at, channels)
	if err != nil {
		return nil, err
	}
	w, err := h.want(r.Context(), false, channels, since)
	if err != nil {
		return nil, err
	}
	return h.newFeed("sse", w), nil
}

// sse writes events.
type sse struct {
	w  *http.ResponseController
	to http.ResponseWriter
	b  []byte
	at places
}

func (s *sse) add(e *event) {
	s.at.note(e)
	switch {
	case e.subbed != nil:
		s.b = append(s.b, "event: subscribed\n"...)
	case e.join != nil:
		s.b = append(s.b, "event: join\n"...)
	case e.leave != nil:
		s.b = append(s.b, "event: leave\n"...)
	}
	if e.pub != nil || e.subbed != nil {
		begin := len(s.b)
		s.b = append(s.b, "id: "...)
		if n := len(s.b); len(s.at.appendID(s.b)) > n {
			s.b = append(s.at.appendID(s.b), '\n')
		} else {
			s.b = s.b[:begin]
		}
	}
	s.b = append(s.b, "data: "...)
	s.b = append(s.b, e.text...)
	s.b = append(s.b, "\n\n"...)
}

func (s *sse) flush() error {
	if err := s.w.SetWriteDeadline(time.Now().Add(writeFor)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := s.to.Write(s.b)
	if s.b = s.b[:0]; cap(s.b) > 4<<10 {
		s.b = nil
	}
	if err != nil {
		return err
	}
	return s.w.Flush()
}

// StreamSocket gives the same as [Hub.Stream] over a WebSocket, a message for each event: its
// data there. What clients send ends the session.
func (h *Hub) StreamSocket(ctx context.Context, c *ws.Conn) error {
	r := c.Request()
	f, err := h.asked(r.WithContext(ctx))
	if err != nil {
		return closing(err)
	}
	t := &socket{oneWay: oneWay{h, "websocket_stream", f.wanted}, c: c}
	done, err := h.subscribe(ctx, t, f.wanted)
	if err != nil {
		return closing(err)
	}
	defer done()
	c.CloseRead()
	<-ctx.Done()
	return nil // whoever has ended it has said why
}

// Socket is StreamSocket for handshakes with "channel" in their query, and WebSocket for
// all others: one route for both.
func (h *Hub) Socket(ctx context.Context, c *ws.Conn) error {
	if r := c.Request(); r != nil && r.URL.Query().Has("channel") {
		return h.StreamSocket(ctx, c)
	}
	return h.WebSocket(ctx, c)
}

// closing is err as the end of a session.
func closing(err error) error {
	code, reason := ws.ClosePolicy, err.Error()
	if why := refusal(err); why != nil {
		code, reason = why.Close()
	}
	return &ws.CloseError{Code: code, Reason: reason}
}
