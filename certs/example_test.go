package certs_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/oneport-edge/oneport/certs"
)

// Certificates from files, in a server of your own. router.Server does all of
// this by itself.
func ExampleFiles() {
	source := certs.Files("tls.crt", "tls.key")
	source.Pairs = append(source.Pairs, certs.Pair{Cert: "other.crt", Key: "other.key"}) // chosen by SNI
	if err := source.Load(); err != nil {
		log.Fatal(err)
	}
	cfg := certs.Config(source, certs.Options{})
	if err := certs.Check(cfg, source.Names()); err != nil { // a handshake with ourselves
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go source.Watch(ctx, slog.Default()) // what is replaced on disk is served from the next handshake on

	ln, err := tls.Listen("tcp", ":443", cfg)
	if err != nil {
		log.Print(err)
		return
	}
	defer ln.Close()
}

// A certificate for development: made on first use and kept. Clients that
// trust ca.crt need no exception.
func ExampleDev() {
	parent, err := os.MkdirTemp("", "certs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)

	source := certs.Dev(filepath.Join(parent, "dev"), "dev.example.com") // and localhost
	if err := source.Load(); err != nil {
		log.Print(err)
		return
	}
	fmt.Println(source.Names())
	made, err := os.ReadDir(filepath.Dir(source.CACert()))
	if err != nil {
		log.Print(err)
		return
	}
	for _, file := range made {
		fmt.Println(file.Name())
	}
	// Output:
	// [localhost dev.example.com]
	// ca.crt
	// ca.key
	// server.crt
	// server.key
}
