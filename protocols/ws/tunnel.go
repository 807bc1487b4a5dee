package ws

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455, 4.2.2 asks for it; it protects nothing
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/protocols"
)

// TunnelTimeout is the default of TunnelOptions.Timeout.
const TunnelTimeout = 10 * time.Second

// TunnelOptions configures a Tunnel.
type TunnelOptions struct {
	// Dial opens a connection to the upstream for a handshake, with TLS if need be. Required.
	Dial func(ctx context.Context, handshake *http.Request) (net.Conn, error)
	// Prepare may change the header that is sent upstream: forwarding fields, a
	// request id. It sees it without the fields that end at this hop. Nil
	// changes nothing.
	Prepare func(out http.Header, in *http.Request)
	// Timeout bounds the wait for the upstream's answer, dialing included. Zero
	// means 10 s.
	Timeout time.Duration
	// Log receives failures of the upstream at Warn. Nil discards.
	Log *slog.Logger
	// Name is what the log calls the upstream.
	Name string
	// Relay is how the tunnel treats what goes through it.
	Relay Relay
}

const (
	headBudget    = 64 << 10         // of the upstream's answer, its first lines included
	informational = 5                // answers of 1xx that may come before it, as in net/http
	refusalWait   = 30 * time.Second // for the body of an answer that is a refusal
)

// Tunnel gives a handler that hands upgrades on to another server. Whether a
// page's Origin may connect is for that server to say, and so is what is spoken:
// subprotocols, and what it pings itself. What it answers but 101 is the client's
// answer. Behind the handshakes Relay holds.
func (s *Server) Tunnel(opts TunnelOptions) http.Handler {
	opts.Timeout = cmp.Or(opts.Timeout, TunnelTimeout)
	opts.Relay = opts.Relay.withDefaults()
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why := vetForm(r)
		switch {
		case why != refusedNot:
		case r.ContentLength != 0:
			// The upstream would take the body for what comes behind the handshake.
			why = refusedBody
		case !s.admit():
			why = refusedDraining
		}
		if why != refusedNot {
			s.refused[why].Add(1)
			why.answer(w)
			return
		}
		s.tunnel(w, r, &opts)
	})
}

// tunnel takes an admitted handshake to the upstream, and returns once the
// tunnel stands or has come to nothing.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request, opts *TunnelOptions) {
	call := protocols.CallFrom(r.Context())
	// Of who is nobody here, the server may know more, and speak it itself.
	asks := asksInband(r, call) && call.Identity() != nil
	if asks {
		call.Select(protocols.InBand)
	}
	a, err := ask(r, opts, asks)
	if err != nil {
		s.lost()
		if r.Context().Err() != nil {
			if _, ok := errors.AsType[*protocols.Refusal](context.Cause(r.Context())); ok { // the port does not wait for it
				s.refused[refusedDraining].Add(1)
				refusedDraining.answer(w)
				return
			}
			s.refused[refusedHandshake].Add(1)
			panic(http.ErrAbortHandler) // the client has left
		}
		opts.Log.Warn("upstream failed", "upstream", opts.Name, "err", err)
		why := failure(err)
		s.refused[why].Add(1)
		why.answer(w)
		return
	}
	if a.StatusCode != http.StatusSwitchingProtocols {
		s.lost() // what is left is an ordinary request
		s.refused[refusedUpstream].Add(1)
		a.refuse(w)
		return
	}
	client, brw, err := hijack(w, call)
	if err != nil {
		_ = a.conn.Close()
		s.lost()
		s.refused[refusedHandshake].Add(1)
		refusedHandshake.answer(w)
		return
	}
	early, _ := a.rest.Peek(a.rest.Buffered()) // no more than is there
	ahead, _ := brw.Peek(brw.Reader.Buffered())
	ahead = bytes.Clone(ahead)
	raw := opts.Relay.Mode == Raw
	if call != nil && a.Header[fieldSubprotocol] == nil && call.Selected() != "" {
		a.Header[fieldSubprotocol] = []string{call.Selected()}
	}
	if err := a.begin(client, early, raw); err != nil {
		_ = a.conn.Close()
		_ = client.Close()
		s.lost()
		s.refused[refusedHandshake].Add(1)
		return
	}
	if call != nil {
		call.Detach()
	}
	s.tunnels.Add(1)
	var t session
	var late bool
	if raw {
		rt := newTunnel(s, client, a.conn, early)
		rt.call = call
		t, late = rt, s.add(rt)
		go rt.run(ahead) // owned by the server: Drain waits for it
	} else {
		at := newAware(s, opts.Relay, client, a.conn, a.deflated)
		at.call = call
		if asks {
			at.speak()
		}
		t, late = at, s.add(at)
		go at.run(ahead, bytes.Clone(early)) // the same
	}
	if late {
		t.Close(CloseGoingAway, "")
	}
	endable(call, t)
}

// fieldSubprotocol lists what may be spoken, and says what is (RFC 6455, 11.3.4).
const fieldSubprotocol = "Sec-Websocket-Protocol"

// begin answers the client's handshake, and tells it early at once if nobody is to look
// at it.
func (a *answer) begin(client net.Conn, early []byte, raw bool) error {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	removeHopByHop(a.Header)
	delete(a.Header, "Content-Length")
	writeUpgrade(&b, a.Header)
	if raw {
		b.Write(early)
	}
	_ = client.SetWriteDeadline(time.Now().Add(tunnelWrite)) // an error shows when writing
	_, err := client.Write(b.Bytes())
	return err
}

// answer is what the upstream says to a handshake.
type answer struct {
	*http.Response
	conn net.Conn
	rest *bufio.Reader // behind the head
	deflated
}

// errAnswer is an answer that is no handshake of a WebSocket, and no refusal.
var errAnswer = errors.New("not an answer to a WebSocket handshake")

// failure is what the client is told of an upstream that failed with err.
func failure(err error) refusal {
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		return refusedLate
	case errors.Is(err, errAnswer):
		return refusedInvalid
	}
	return refusedUnreachable
}

// ask dials the upstream and repeats the handshake of r there, without what is for the port
// in it if inband says so.
func ask(r *http.Request, opts *TunnelOptions, inband bool) (*answer, error) {
	ctx, cancel := context.WithTimeout(r.Context(), opts.Timeout)
	defer cancel()
	up, err := opts.Dial(ctx, r)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = up.SetDeadline(time.Unix(1, 0)) })
	a, err := exchange(up, r, opts, inband)
	if !stop() && err == nil {
		err = ctx.Err() // the deadline in the past is set, or about to be
	}
	if err != nil {
		_ = up.Close()
		return nil, err
	}
	return a, nil
}

// exchange writes the request and reads the head of the answer.
func exchange(up net.Conn, r *http.Request, opts *TunnelOptions, inband bool) (*answer, error) {
	var b bytes.Buffer
	uri := r.RequestURI
	if !strings.HasPrefix(uri, "/") {
		uri = r.URL.RequestURI() // what a proxy is sent names the host as well
	}
	if call := protocols.CallFrom(r.Context()); call != nil {
		uri = call.Shown(uri)
	}
	// Some servers read a "#" as the end of the path, which the route was not chosen by.
	uri = strings.ReplaceAll(uri, "#", "%23")
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", uri, r.Host)
	out := r.Header.Clone()
	removeHopByHop(out)
	out.Del("Content-Length") // 0, if there is one
	if opts.Relay.Mode == Aware {
		// What is for the port must be there to read, so that nothing is compressed with it.
		offerExtensions(out, opts.Relay.Compression && !inband)
	}
	if opts.Prepare != nil {
		opts.Prepare(out, r)
	}
	if inband {
		withoutInband(out) // guards may have set the field
	}
	writeUpgrade(&b, out)
	if _, err := up.Write(b.Bytes()); err != nil {
		return nil, err
	}

	budget := &io.LimitedReader{R: up, N: headBudget}
	rest := bufio.NewReader(budget)
	for range informational + 1 {
		res, err := http.ReadResponse(rest, nil) //nolint:bodyclose // refuse reads it, and 101 has none
		switch {
		case err != nil && budget.N == 0:
			return nil, fmt.Errorf("%w: its head is longer than %d bytes", errAnswer, headBudget)
		case err != nil:
			return nil, unreadable(err)
		case res.StatusCode == http.StatusSwitchingProtocols:
			a := &answer{Response: res, conn: up, rest: rest}
			err := checkAccept(res.Header, r.Header.Get("Sec-WebSocket-Key"))
			if err == nil && opts.Relay.Mode == Aware {
				a.deflated, err = acceptedExtensions(res.Header, out[fieldExtensions] != nil)
			}
			return a, err
		case res.StatusCode >= http.StatusOK:
			budget.N = math.MaxInt64
			return &answer{Response: res, conn: up, rest: rest}, nil
		case res.StatusCode < http.StatusContinue: // net/http would panic
			return nil, fmt.Errorf("%w: status %d", errAnswer, res.StatusCode)
		}
	}
	return nil, fmt.Errorf("%w: more than %d informational ones", errAnswer, informational)
}

// unreadable tells a connection that failed from bytes that are no HTTP.
func unreadable(err error) error {
	var ne net.Error
	if errors.As(err, &ne) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("no answer: %w", err)
	}
	return fmt.Errorf("%w: %w", errAnswer, err)
}

// checkAccept looks for proof that the upstream has understood the handshake
// with key, as a client has to (RFC 6455, 4.1).
func checkAccept(h http.Header, key string) error {
	if !websocket.IsWebSocketUpgrade(&http.Request{Header: h}) {
		return fmt.Errorf("%w: 101 without Upgrade: websocket", errAnswer)
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as RFC 6455 has it
	if h.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return fmt.Errorf("%w: wrong Sec-WebSocket-Accept", errAnswer)
	}
	return nil
}

// refuse hands an answer on that is not 101.
func (a *answer) refuse(w http.ResponseWriter) {
	defer a.conn.Close()
	_ = a.conn.SetDeadline(time.Now().Add(refusalWait)) // an error shows when reading
	removeHopByHop(a.Header)
	maps.Copy(w.Header(), a.Header)
	w.WriteHeader(a.StatusCode)
	if _, err := io.Copy(w, a.Body); err != nil {
		panic(http.ErrAbortHandler) // only a broken connection tells that it is not whole
	}
}

// hopByHop are the fields that mean this connection (RFC 9110, 7.6.1), and those
// that older servers take for such.
var hopByHop = [...]string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// removeHopByHop removes what ends at this hop, and what Connection names.
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// writeUpgrade ends a head, of a request or an answer, with what Upgrade needs.
func writeUpgrade(b *bytes.Buffer, h http.Header) {
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	_ = h.Write(b) // a Buffer takes everything
	b.WriteString("\r\n")
}
