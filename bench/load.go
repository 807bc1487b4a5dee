package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// The clients are as cheap as they can be, and the same for both sides: they
// write bytes that were made before, and look only at what they must of the
// answer. They are closed loops: a fixed number of connections, each of which
// waits for its answer.

// dialTLS opens a connection.
func dialTLS(ctx context.Context, h *house, addr string, alpn ...string) (*tls.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, h.tls(alpn...))
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// client does one operation after the other.
type client interface {
	do(n int) error
	close()
}

// clients are a load of several clients that work at once.
type clients []client

func (cs clients) run(ctx context.Context, n int) error {
	var all sync.WaitGroup
	errs := make([]error, len(cs))
	for i, c := range cs {
		all.Go(func() { errs[i] = c.do(n*(i+1)/len(cs) - n*i/len(cs)) })
	}
	all.Wait()
	return errors.Join(ctx.Err(), errors.Join(errs...))
}

func (cs clients) close() {
	for _, c := range cs {
		c.close()
	}
}

// openClients opens n of them.
func openClients(n int, open func() (client, error)) (load, error) {
	var cs clients
	for range n {
		c, err := open()
		if err != nil {
			cs.close()
			return nil, err
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// http1 is a keep-alive connection that repeats one request.
type http1 struct {
	c       *tls.Conn
	r       *bufio.Reader
	request []byte
	want    string // the body
	body    []byte
}

func openHTTP1(method, path, body, want string) opener {
	head := method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n" +
		"Accept-Encoding: gzip\r\n"
	if body != "" {
		head += "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return func(ctx context.Context, h *house, addr string) (load, error) {
		request := head + "Authorization: " + h.authorization() + "\r\n\r\n" + body
		return openClients(connections, func() (client, error) {
			c, err := dialTLS(ctx, h, addr, "http/1.1")
			if err != nil {
				return nil, err
			}
			return &http1{c, bufio.NewReader(c), []byte(request), want, make([]byte, len(want))}, nil
		})
	}
}

func (c *http1) do(n int) error {
	for range n {
		if _, err := c.c.Write(c.request); err != nil {
			return err
		}
		status, length, err := readHead(c.r)
		if err != nil {
			return err
		}
		if status != "200" || length != len(c.want) {
			return &answerError{fmt.Sprintf("%s with %d bytes", status, length), fmt.Sprintf("200 with %d bytes", len(c.want))}
		}
		if _, err := io.ReadFull(c.r, c.body); err != nil {
			return err
		}
		if string(c.body) != c.want {
			return &answerError{string(c.body), c.want}
		}
	}
	return nil
}

func (c *http1) close() { _ = c.c.Close() }

// readHead reads an HTTP/1.1 answer up to its body.
func readHead(r *bufio.Reader) (status string, length int, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "", 0, err
		}
		line = bytes.TrimSuffix(line, []byte("\r\n"))
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case len(line) == 0:
			return status, length, nil
		case status == "":
			if len(line) < len("HTTP/1.1 200") {
				return "", 0, &answerError{string(line), "HTTP/1.1 200 OK"}
			}
			status = string(line[9:12])
		case bytes.EqualFold(name, []byte("Content-Length")): // HAProxy writes it small
			if length, err = strconv.Atoi(string(value)); err != nil {
				return "", 0, err
			}
		}
	}
}

// socket is a WebSocket that sends one message and waits for its echo.
type socket struct {
	c     *tls.Conn
	r     *bufio.Reader
	frame []byte
	want  string
	got   []byte
}

// upgradeRequest opens a WebSocket (RFC 6455, 4.1). The key need not be random here.
const upgradeRequest = "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// upgrade makes a WebSocket of a connection. fields are more of the request's, each
// with its line's end.
func upgrade(c net.Conn, path, fields string) (*bufio.Reader, error) {
	if _, err := fmt.Fprintf(c, upgradeRequest+fields+"\r\n", path); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, 512)
	status, _, err := readHead(r)
	if err == nil && status != "101" {
		err = &answerError{status, "101"}
	}
	return r, err
}

// Opcodes with FIN set, and where they differ the mask bit (RFC 6455, 5.2).
const (
	finText  = 0x81
	finPing  = 0x89
	finPong  = 0x8a
	finClose = 0x88
	masked   = 0x80
)

// frameOf is a client's frame.
func frameOf(first byte, payload string) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	f := append([]byte{first, masked | byte(len(payload))}, key[:]...)
	for i := range len(payload) {
		f = append(f, payload[i]^key[i%4])
	}
	return f
}

func openWebSocket(path, message string) opener {
	return func(ctx context.Context, h *house, addr string) (load, error) {
		return openClients(connections, func() (client, error) {
			c, err := dialTLS(ctx, h, addr) // gorilla, ws and Python offer no ALPN
			if err != nil {
				return nil, err
			}
			r, err := upgrade(c, path, h.authorized())
			if err != nil {
				_ = c.Close()
				return nil, err
			}
			return &socket{c, r, frameOf(finText, message), message, make([]byte, len(message))}, nil
		})
	}
}

func (s *socket) do(n int) error {
	for range n {
		if _, err := s.c.Write(s.frame); err != nil {
			return err
		}
		if err := s.echo(); err != nil {
			return err
		}
	}
	return nil
}

// echo reads frames up to the echo, and answers pings on the way.
func (s *socket) echo() error {
	for {
		var head [2]byte
		if _, err := io.ReadFull(s.r, head[:]); err != nil {
			return err
		}
		if head[0] == finPing {
			if err := pong(s.c, s.r, head[1]); err != nil {
				return err
			}
			continue
		}
		if want := [2]byte{finText, byte(len(s.want))}; head != want {
			return &answerError{string(head[:]), string(want[:])}
		}
		if _, err := io.ReadFull(s.r, s.got); err != nil {
			return err
		}
		if string(s.got) != s.want {
			return &answerError{string(s.got), s.want}
		}
		return nil
	}
}

func (s *socket) close() { _ = s.c.Close() }

// pong answers a ping of n bytes, whose head was read.
func pong(c *tls.Conn, r *bufio.Reader, n byte) error {
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	_, err := c.Write(frameOf(finPong, string(payload)))
	return err
}

// handshakes opens connections, and ends each when the handshake is done.
type handshakes struct {
	ctx  context.Context
	h    *house
	addr string
}

func openHandshakes(ctx context.Context, h *house, addr string) (load, error) {
	return openClients(handshakers, func() (client, error) { return &handshakes{ctx, h, addr}, nil })
}

func (s *handshakes) do(n int) error {
	for range n {
		c, err := dialTLS(s.ctx, s.h, s.addr, "http/1.1")
		if err != nil {
			return err
		}
		// The server answers the close with its own, or with the end of the connection: all of its work is done then.
		err = errors.Join(c.CloseWrite(), drained(c))
		_ = c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *handshakes) close() {}

// drained reads to the end. What comes is the server's session ticket, which
// crypto/tls keeps to itself.
func drained(c *tls.Conn) error {
	n, err := io.Copy(io.Discard, c)
	if n > 0 {
		return &answerError{strconv.FormatInt(n, 10) + " bytes", "nothing"}
	}
	return err
}

// idleSocket waits on a WebSocket that does nothing, and answers pings.
func idleSocket(c *tls.Conn, r *bufio.Reader, lost *atomic.Int64) {
	defer c.Close()
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != finPing || pong(c, r, head[1]) != nil {
			break
		}
	}
	lost.Add(1)
}
