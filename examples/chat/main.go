package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/gin-gonic/gin"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/examples/chat/chatpb"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
)

func main() {
	gin.SetMode(gin.ReleaseMode)
	srv := newServer()
	flag.StringVar(&srv.Addr, "addr", "127.0.0.1:8445", "address to listen on")
	dir := flag.String("certs", "certs/dev", "directory of the development certificate")
	flag.Parse()
	source := certs.Dev(*dir)
	srv.Certs = source

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal is not caught
	log.Printf("open https://%s/ (its CA is %s)", srv.Addr, source.CACert())
	if err := srv.ListenAndServe(ctx); err != nil {
		log.Fatal(err)
	}
}

// newServer gives one room, served in three protocols.
func newServer() *router.Server {
	r := newRoom()
	srv := &router.Server{
		HTTP:    newWeb(r),
		Sockets: ws.Options{ReadLimit: mostRequest},
	}
	chatpb.RegisterFeedServer(srv, feed{room: r, draining: srv.Draining})
	srv.WebSocket("/ws", r.serveSocket)
	return srv
}
