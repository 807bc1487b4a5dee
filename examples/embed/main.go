package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/gin-gonic/gin"

	"github.com/oneport-edge/oneport/certs"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

func main() {
	gin.SetMode(gin.ReleaseMode)
	srv := newServer()
	flag.StringVar(&srv.Addr, "addr", "127.0.0.1:8444", "address to listen on")
	dir := flag.String("certs", "certs/dev", "directory of the development certificate")
	flag.Parse()
	srv.Certs = certs.Dev(*dir)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal is not caught
	if err := srv.ListenAndServe(ctx); err != nil {
		log.Fatal(err)
	}
}

func newServer() *router.Server {
	web := gin.New()
	web.GET("/api/hello", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"message": "Hello from Gin"}) })

	srv := &router.Server{HTTP: web}
	echov1.RegisterEchoServer(srv, echo{})
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
	return srv
}

// echo is the gRPC service.
type echo struct{ echov1.UnimplementedEchoServer }

func (echo) Unary(_ context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: req.GetMessage()}, nil
}
