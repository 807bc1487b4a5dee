package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/gin-gonic/gin"

	"github.com/oneport-edge/oneport/certs"
)

func main() {
	gin.SetMode(gin.ReleaseMode)
	addr := flag.String("addr", "127.0.0.1:8445", "address to listen on")
	dir := flag.String("certs", "certs/dev", "directory of the development certificate")
	redis := flag.String("redis", "", "where instances meet, as redis://127.0.0.1:6379/0; without it there is one")
	key := flag.String("key", "", "file of the key that names are signed with, the same for all instances; made if it is not there (default chat.key beside the certificate)")
	flag.Parse()
	source := certs.Dev(*dir)
	if *key == "" {
		*key = filepath.Join(*dir, "chat.key")
	}
	signer, err := loadKey(*key)
	if err != nil {
		log.Fatal(err)
	}
	a, err := newApp(options{redis: *redis, key: signer, log: slog.Default()})
	if err != nil {
		log.Fatal(err)
	}
	a.srv.Addr, a.srv.Certs = *addr, source

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal is not caught
	log.Printf("open https://%s/ (its CA is %s)", *addr, source.CACert())
	if err := a.run(func() error { return a.srv.ListenAndServe(ctx) }); err != nil {
		log.Fatal(err)
	}
}

// run serves, and then ends the hub. Feeds have no end of their own: the hub ends them once the
// server drains.
func (a *app) run(serve func() error) error {
	over := make(chan struct{})
	var drain sync.WaitGroup
	drain.Go(func() {
		select {
		case <-a.srv.Draining():
			a.hub.Drain()
		case <-over:
		}
	})
	err := serve()
	close(over)
	drain.Wait()
	a.hub.Close()
	return err
}
