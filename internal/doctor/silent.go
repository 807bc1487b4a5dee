package doctor

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// plaintext asks a TLS port by HTTP without TLS.
func (p *patient) plaintext() Check {
	c, err := p.dial(1)
	if err != nil {
		return fail("another connection: %s", said(err))
	}
	defer shut(c)
	if _, err := c.Write(p.head(p.Path, "Connection: close")); err != nil {
		return ok("it is refused: %s", said(err))
	}
	r := bufio.NewReader(io.LimitReader(c, mostHead))
	b, err := r.Peek(5)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return warn("plaintext HTTP gets no answer, and is not closed within %v", p.Timeout)
	case len(b) > 0 && b[0] == 0x15: // a TLS record: alert
		return ok("plaintext HTTP is refused by a TLS alert")
	case err != nil:
		return ok("plaintext HTTP is refused: %s", said(err))
	case string(b) != "HTTP/":
		return ok("plaintext HTTP is refused, by what is no HTTP")
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return warn("plaintext HTTP gets half an answer: %s", said(err))
	}
	defer res.Body.Close()
	if res.StatusCode < 300 {
		return warn("plaintext HTTP on the TLS port is served: %d", res.StatusCode)
	}
	return ok("plaintext HTTP is answered with %d", res.StatusCode)
}

// garbage sends what no protocol begins with. It must end, and others must not suffer.
func (p *patient) garbage() Check {
	c, err := p.dial(1)
	if err != nil {
		return fail("another connection: %s", said(err))
	}
	defer shut(c)
	began := time.Now()
	_, err = c.Write(bytes.Repeat([]byte{0, 0xff, 0x80, '\r', '\n'}, 20))
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(c, mostAnswer))
	}
	took := time.Since(began).Round(time.Millisecond)
	if after := p.alive(); after != nil {
		return fail("after a hundred bytes of garbage others get no answer: %s", said(after))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return warn("a connection that begins with garbage is still open after %v", p.Timeout)
	}
	return ok("a connection that begins with garbage is closed after %v", took)
}

// alive reports whether a new client is served.
func (p *patient) alive() error {
	if p.h1 != nil {
		_, err := p.get1("http/1.1")
		return err
	}
	c, err := p.secure(1, p.config("h2", "http/1.1"))
	if err != nil {
		return err
	}
	return c.Close()
}

// neighbours opens some connections that say nothing, or only begin to, and asks beside them.
func (p *patient) neighbours() Check {
	const each = 8
	for i := range 2 * each {
		c, err := p.dial(3)
		if err != nil {
			return fail("connection %d of silent clients: %s", i+1, said(err))
		}
		defer shut(c)
		if i >= each {
			if _, err := c.Write(helloBegin); err != nil {
				return fail("connection %d: %s", i+1, said(err))
			}
		}
	}
	began := time.Now()
	if err := p.alive(); err != nil {
		return fail("beside %d silent clients another one gets no answer: %s", 2*each, said(err))
	}
	return ok("beside %d silent clients another one is served, in %v", 2*each, time.Since(began).Round(time.Millisecond))
}

// helloBegin is the begin of a ClientHello of 512 bytes.
var helloBegin = []byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}

func (p *patient) silent() Check { return p.hush("a client that says nothing", nil) }
func (p *patient) silentTLS() Check {
	return p.hush("a client that stops within its hello", helloBegin)
}

// hush measures how long a server bears who says no more than that.
func (p *patient) hush(who string, first []byte) Check {
	c, err := p.dial(2)
	if err != nil {
		return fail("another connection: %s", said(err))
	}
	defer shut(c)
	if _, err := c.Write(first); err != nil {
		return fail("%s: %s", who, said(err))
	}
	took, open := p.wait(c)
	switch {
	case !open:
		return ok("%s is hung up on after %s", who, took)
	case p.Timeout >= p.Patience:
		return fail("%s still has its connection after %v", who, p.Timeout)
	}
	return skip("%s still has its connection after %v; --timeout %v would show whether it is for ever", who, p.Timeout, p.Patience+5*time.Second)
}

// wait reads until the server hangs up, or for Timeout. One that sends more than is read has not.
func (p *patient) wait(c net.Conn) (took time.Duration, open bool) {
	began := time.Now()
	if c.SetReadDeadline(began.Add(p.Timeout)) != nil {
		return 0, false
	}
	n, err := io.Copy(io.Discard, io.LimitReader(c, mostAnswer))
	return time.Since(began).Round(100 * time.Millisecond), n == mostAnswer || errors.Is(err, os.ErrDeadlineExceeded)
}

// idled says what a time between two requests came to.
func (p *patient) idled(took time.Duration, open bool) Check {
	switch {
	case open:
		return ok("a connection without requests is still open after %v", p.Timeout)
	case took < time.Second:
		return warn("a connection without requests is closed after %v", took)
	}
	return ok("a connection without requests is closed after %v", took)
}

func (p *patient) idle1() Check {
	c, err := p.open1(3, "http/1.1")
	if err != nil {
		return skip("HTTP/1.1 does not work")
	}
	defer shut(c)
	a, err := c.do(p.Path)
	switch {
	case err != nil:
		return skip("HTTP/1.1 does not work")
	case a.close || !a.whole:
		return skip("the connection is not kept after the answer")
	}
	return p.idled(p.wait(c))
}
