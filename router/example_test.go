package router_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/certs"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/mux"
	"github.com/oneport-edge/oneport/protocols/rpc"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

// greeter stands for a gRPC service of yours.
type greeter struct{ echov1.UnimplementedEchoServer }

func (greeter) Unary(_ context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: "Hello, " + req.GetMessage()}, nil
}

// Gin, a gRPC service and a WebSocket on one TLS port, until Ctrl-C.
func Example() {
	web := gin.New()
	web.GET("/api/hello", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"message": "Hello from HTTP"}) })

	srv := &router.Server{
		Addr:  ":443",
		Certs: certs.Files("tls.crt", "tls.key"), // reloaded when the files change
		HTTP:  web,
	}
	echov1.RegisterEchoServer(srv, greeter{}) // health and reflection come with it
	srv.WebSocket("/ws", func(_ context.Context, c *ws.Conn) error {
		for {
			typ, msg, err := c.Read()
			if err != nil {
				return err
			}
			if err := c.Write(typ, msg); err != nil {
				return err
			}
		}
	})

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := srv.ListenAndServe(ctx); err != nil { // blocks; drains when ctx ends
		log.Print(err)
	}
}

// Listen opens the port before anything is served: it tells what ":0" became,
// and connections wait until ListenAndServe takes them.
func ExampleServer_Listen() {
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	source := certs.Dev(dir)
	if err := source.Load(); err != nil { // Serve does it, too; here the client needs ca.crt before
		panic(err)
	}

	srv := &router.Server{
		Addr:  "127.0.0.1:0",
		Certs: source,
		Log:   slog.New(slog.DiscardHandler),
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			call := protocols.CallFrom(r.Context()) // the same in gRPC and WebSocket handlers
			fmt.Fprintf(w, "%s, %s, ALPN %s", call.Protocol, call.Version, call.Conn.TLS.NegotiatedProtocol)
		}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	addrs, err := srv.Listen(ctx)
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.ListenAndServe(ctx) }()

	pool := x509.NewCertPool()
	if ca, err := os.ReadFile(source.CACert()); err == nil {
		pool.AppendCertsFromPEM(ca)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	res, err := (&http.Client{Transport: transport}).Get("https://" + addrs[0].String())
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	transport.CloseIdleConnections()
	fmt.Println(string(body), err)

	cancel()
	fmt.Println("drained:", <-done)
	// Output:
	// http, HTTP/2.0, ALPN h2 <nil>
	// drained: <nil>
}

// A listener of your own: inherited, in memory, or with socket options.
func ExampleServer_Serve() {
	cfg := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second}}
	ln, err := cfg.Listen(context.Background(), "tcp", ":443")
	if err != nil {
		log.Fatal(err)
	}
	srv := &router.Server{Certs: certs.Files("tls.crt", "tls.key"), HTTP: gin.New()}
	switch err := srv.Serve(context.Background(), ln); { // closes ln in any case
	case errors.Is(err, router.ErrDrainTimeout):
		log.Print("calls were cut off")
	case err != nil:
		log.Fatal(err)
	}
}

// A *grpc.Server of your own, with options and interceptors of your own. Built
// with rpc.ServerOptions it knows the client and its TLS state, and a panic in
// a handler ends that call alone.
func ExampleServer_ownGRPC() {
	srv := &router.Server{Addr: ":443", Certs: certs.Files("tls.crt", "tls.key")}
	opts := append(rpc.ServerOptions(srv, slog.Default()),
		grpc.MaxRecvMsgSize(16<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Hour}), // the last option wins
	)
	srv.GRPC = grpc.NewServer(opts...)
	echov1.RegisterEchoServer(srv.GRPC, greeter{}) // there, not on srv
	if err := srv.ListenAndServe(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A WebSocket inside your own Gin engine, behind its middleware. Its sessions
// are drained and counted like all others.
func ExampleServer_WebSocketHandler() {
	type roomKey struct{}
	web := gin.New()
	srv := &router.Server{Addr: ":443", Certs: certs.Files("tls.crt", "tls.key"), HTTP: web}

	room := srv.WebSocketHandler(func(ctx context.Context, c *ws.Conn) error {
		name, _ := ctx.Value(roomKey{}).(string)
		return c.Write(ws.Text, []byte("welcome to "+name))
	}, ws.Options{Origins: []string{"https://app.example.com"}})

	signedIn := func(c *gin.Context) {
		if c.GetHeader("Authorization") == "" {
			c.AbortWithStatus(http.StatusUnauthorized) // before the upgrade
			return
		}
		ctx := context.WithValue(c.Request.Context(), roomKey{}, c.Param("name"))
		c.Request = c.Request.WithContext(ctx) // what the session's context will carry
	}
	web.GET("/rooms/:name", signedIn, gin.WrapH(room))

	if err := srv.ListenAndServe(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A stream that would go on for ever ends when the port drains.
func ExampleServer_Draining() {
	srv := &router.Server{Addr: ":443", Certs: certs.Files("tls.crt", "tls.key")}
	ticks := func(out grpc.ServerStreamingServer[echov1.ServerStreamResponse]) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := out.Send(&echov1.ServerStreamResponse{Message: "tick"}); err != nil {
					return err
				}
			case <-srv.Draining():
				return status.Error(codes.Unavailable, "the server is going away") // clients come back, elsewhere
			case <-out.Context().Done():
				return status.FromContextError(out.Context().Err()).Err()
			}
		}
	}
	_ = ticks // called by a method of the service
}

// Two listeners with everything behind them in common: TLS for the world, and
// plaintext (HTTP/1, and HTTP/2 with prior knowledge) for this machine.
func ExampleListener() {
	srv := &router.Server{
		Listeners: []router.Listener{
			{Addr: ":443"},
			{Addr: "127.0.0.1:8080", Plaintext: true},
		},
		Certs: certs.Files("tls.crt", "tls.key"),
		HTTP:  gin.New(),
	}
	if err := srv.ListenAndServe(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Behind a TCP load balancer that sends the PROXY protocol: handlers of all
// protocols see the client's address, not the balancer's.
func ExampleListener_proxyProtocol() {
	balancers := netip.MustParsePrefix("10.0.0.0/8")
	srv := &router.Server{
		Listeners: []router.Listener{{Addr: ":443", ProxyProtocol: []netip.Prefix{balancers}}},
		Certs:     certs.Files("tls.crt", "tls.key"),
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn := protocols.ConnFrom(r.Context())
			fmt.Fprintf(w, "%s, by way of %s", conn.Remote, conn.Peer)
		}),
	}
	if err := srv.ListenAndServe(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Connections for one name go to another TLS server, byte for byte: their
// certificate is that server's affair.
func ExampleServer_passthrough() {
	srv := &router.Server{
		Addr:        ":443",
		Certs:       certs.Files("tls.crt", "tls.key"),
		HTTP:        gin.New(),
		Passthrough: []mux.Passthrough{{SNI: "legacy.example.com", To: "127.0.0.1:9443"}},
	}
	if err := srv.ListenAndServe(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Client certificates, optional for the port and asked for by one handler.
// Their files are followed, too.
func ExampleServer_clientCertificates() {
	web := gin.New()
	web.GET("/internal", func(c *gin.Context) {
		shown := protocols.ConnFrom(c.Request.Context()).TLS.PeerCertificates // verified
		if len(shown) == 0 {
			c.String(http.StatusForbidden, "a client certificate is needed here")
			return
		}
		c.String(http.StatusOK, "hello, %s", shown[0].Subject.CommonName)
	})
	srv := &router.Server{
		Addr:       ":443",
		Certs:      certs.Files("tls.crt", "tls.key"),
		ClientAuth: certs.ClientAuth{CAs: certs.CAFile(filepath.Join("clients", "ca.crt"))}, // Required: true refuses all others
		HTTP:       web,
	}
	if err := srv.ListenAndServe(context.Background()); err != nil {
		log.Fatal(err)
	}
}
