package acme_test

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/oneport-edge/oneport/certs/acme"
	"github.com/oneport-edge/oneport/router"
)

// A port with a certificate of Let's Encrypt, which must reach it at port 443
// of the domain.
func ExampleSource() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	srv := &router.Server{
		Addr: ":443",
		Certs: &acme.Source{
			Domains: []string{"example.com", "www.example.com"},
			Email:   "ops@example.com",
			Storage: "/var/lib/example/acme",
		},
	}
	if err := srv.ListenAndServe(ctx); err != nil {
		log.Print(err)
	}
}
