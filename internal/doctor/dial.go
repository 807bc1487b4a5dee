package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// patient is the server that is asked, and what is known of it before the checks begin:
// they only read that.
type patient struct {
	Options
	ctx                context.Context
	authority          string // as in Host
	grpcAsked, wsAsked bool   // named by the caller: not to be there is a fault

	noTLS     string // why there is no TLS; else ""
	wantsCert bool
	state     tls.ConnectionState // as curl has it: h2 and http/1.1 offered

	h1     *answer // GET of Path, alone on its connection; nil if there is none
	h1Err  error
	h2     *answer // the same over HTTP/2
	h2Err  error   // errNoHTTP2 if the server has none
	rpc    *answer // the gRPC method, alone on its connection
	rpcErr error
	ws     *handshake
	wsErr  error
}

// errNoHTTP2 says that ALPN gave something else.
var errNoHTTP2 = errors.New("the server speaks no HTTP/2")

// dial opens a connection that ends after so many timeouts.
func (p *patient) dial(timeouts int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.Timeout)
	defer cancel()
	c, err := p.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(time.Duration(timeouts) * p.Timeout)); err != nil {
		shut(c)
		return nil, err
	}
	return &line{c, context.AfterFunc(p.ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })}, nil
}

// line is a connection whose waits end when who asks has left.
type line struct {
	net.Conn
	stop func() bool
}

func (l *line) Close() error {
	l.stop()
	return l.Conn.Close()
}

// config is a client's, which takes any certificate: what is wrong with that the checks of
// it say, and the others are to go on.
func (p *patient) config(alpn ...string) *tls.Config {
	return &tls.Config{
		ServerName: p.ServerName, NextProtos: alpn, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // see above; nothing is sent that is secret
	}
}

// secure dials with TLS.
func (p *patient) secure(timeouts int, cfg *tls.Config) (*tls.Conn, error) {
	raw, err := p.dial(timeouts)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(p.ctx); err != nil {
		shut(raw)
		return nil, err
	}
	return c, nil
}

// reach looks whether anybody is there, and speaks TLS.
func (p *patient) reach() error {
	raw, err := p.dial(1)
	if err != nil {
		return fmt.Errorf("%w to %s: %s", ErrUnreachable, p.Address, said(err))
	}
	defer shut(raw)
	c := tls.Client(raw, p.config("h2", "http/1.1"))
	err = c.HandshakeContext(p.ctx)
	p.state = c.ConnectionState()
	var noTLS tls.RecordHeaderError
	switch {
	case err == nil:
	case errors.As(err, &noTLS):
		p.noTLS = "the port does not speak TLS"
	default:
		p.noTLS = "the TLS handshake fails: " + said(err)
	}
	return nil
}

// survey asks for what the checks compare with.
func (p *patient) survey() {
	if p.noTLS != "" {
		return
	}
	p.h1, p.h1Err = p.get1("http/1.1")
	if p.h1Err != nil && (strings.Contains(p.h1Err.Error(), "certificate required") || strings.Contains(p.h1Err.Error(), "bad certificate")) {
		p.wantsCert = true
		return
	}
	p.h2, p.h2Err = p.alone(p.get(), "h2", "http/1.1")
	p.rpc, p.rpcErr = p.alone(p.unary(), "h2")
	if p.ws, p.wsErr = p.upgrade(nil, "https://"+p.authority, nil); p.wsErr == nil && p.ws.c != nil {
		p.ws.part()
	}
}

// said is an error in the words of somebody who looks on.
func said(err error) string {
	var alert tls.AlertError
	switch {
	case errors.As(err, &alert):
		return fmt.Sprintf("it sends the TLS alert %q", strings.TrimPrefix(alert.Error(), "tls: "))
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "it does not answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it resets the connection"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "it closes the connection"
	}
	return quoted(err.Error())
}

// quoted is text that a server may have chosen, as it may be printed.
func quoted(s string) string {
	const most = 120
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	q := fmt.Sprintf("%q", s)
	if inner := q[1 : len(q)-1]; inner == s {
		return s
	}
	return q
}

// shut closes what was used: a failure leaves nothing to do.
func shut(c io.Closer) { _ = c.Close() }
