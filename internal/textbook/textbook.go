package textbook

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Variant chooses among the ways in which people write it.
type Variant struct {
	// HTTP2 has the REST server speak HTTP/2, as those do who have found out that it does
	// not by itself behind cmux.
	HTTP2 bool
	// NoWriters leaves SETTINGS out, as cmux's own README does.
	NoWriters bool
	// NoALPN leaves out what TLS is to offer.
	NoALPN bool
	// HandshakeInAccept makes the handshake where connections are accepted.
	HandshakeInAccept bool
}

// Server is such a program.
type Server struct {
	ln   net.Listener
	web  *http.Server
	rpc  *grpc.Server
	done chan struct{}
}

// Serve begins to serve. The caller closes the server.
func Serve(ln net.Listener, cert tls.Certificate, v Variant) *Server {
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	if v.NoALPN {
		cfg.NextProtos = nil
	}
	ln = tls.NewListener(ln, cfg)
	if v.HandshakeInAccept {
		ln = eager{ln}
	}
	cm := cmux.New(ln)
	cm.HandleError(func(error) bool { return true })
	var calls net.Listener
	if v.NoWriters {
		calls = cm.Match(cmux.HTTP2HeaderField("content-type", "application/grpc"))
	} else {
		calls = cm.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
	}
	pages := cm.Match(cmux.Any())

	s := &Server{ln: ln, rpc: grpc.NewServer(), done: make(chan struct{})}
	healthv1.RegisterHealthServer(s.rpc, health.NewServer())
	s.web = &http.Server{Handler: http.HandlerFunc(serve), ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // no deadline, as tutorials have none
	if v.HTTP2 {
		s.web.Protocols = new(http.Protocols)
		s.web.Protocols.SetHTTP1(true)
		s.web.Protocols.SetUnencryptedHTTP2(true)
	}
	parts := make(chan struct{})
	for _, f := range []func() error{func() error { return s.rpc.Serve(calls) }, func() error { return s.web.Serve(pages) }, cm.Serve} {
		go func() {
			_ = f() // it ends when the listener is closed
			parts <- struct{}{}
		}()
	}
	go func() {
		for range 3 {
			<-parts
		}
		close(s.done)
	}()
	return s
}

// Close ends it. It waits for all clients to leave: that is one of the faults.
func (s *Server) Close() {
	_ = s.web.Close()
	s.rpc.Stop()
	_ = s.ln.Close() // it may be closed already
	<-s.done
}

// eager makes handshakes in the accept loop.
type eager struct{ net.Listener }

func (l eager) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if t, ok := c.(*tls.Conn); ok && t.Handshake() != nil { //nolint:noctx // no deadline: the fault
			_ = c.Close() // it speaks no TLS
			continue
		}
		return c, nil
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/whoami":
		who := `{"protocol": "http"}`
		if r.TLS != nil {
			who = `{"protocol": "http", "tls": {"version": "some"}}`
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, who) // the client has left
	case "/ws":
		var up websocket.Upgrader
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer func() { _ = c.Close() }() // it may have left
		for {
			typ, msg, err := c.ReadMessage()
			if err != nil || c.WriteMessage(typ, msg) != nil {
				return
			}
		}
	default:
		_, _ = io.WriteString(w, "hello\n") // the client has left
	}
}
