package auth_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/auth/extauthz"
)

// Machines come with a certificate or a key, browsers' WebSockets with a ticket. Handlers of
// all protocols find who it is with protocols.IdentityFrom.
func ExampleAny() {
	machines, err := auth.NewMTLS(auth.MTLSOptions{Allow: []string{"spiffe://example.org/ns/prod/*"}})
	if err != nil {
		log.Fatal(err)
	}
	keys := auth.NewAPIKeys(auth.APIKeysOptions{})
	if err := keys.Load("keys.txt"); err != nil {
		log.Fatal(err)
	}
	tickets := auth.NewTickets(auth.TicketsOptions{})
	web := http.NewServeMux()
	web.Handle("POST /ticket", tickets)
	srv := &router.Server{
		Addr: ":443", Certs: certs.Files("tls.crt", "tls.key"),
		ClientAuth: certs.ClientAuth{CAs: certs.CAFile("clients.crt")},
		HTTP:       web,
		Guards:     []protocols.Guard{auth.Any(machines, keys, tickets)},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := srv.ListenAndServe(ctx); err != nil {
		log.Print(err)
	}
}

// Another service decides, and says who it is.
func ExampleForward() {
	service, err := auth.NewHTTPAuthority(auth.HTTPAuthorityOptions{URL: "http://127.0.0.1:9000/decide"})
	if err != nil {
		log.Fatal(err)
	}
	defer service.Close()
	guard, err := auth.NewForward(auth.ForwardOptions{
		Authority: service,
		Upstream:  []string{"X-User-Id", "X-Groups"}, // what servers get of its answer, and never of a client
	})
	if err != nil {
		log.Print(err)
		return
	}
	_ = router.Server{Guards: []protocols.Guard{guard}}
}

// Open Policy Agent and others speak Envoy's ext_authz.
func ExampleForward_extAuthz() {
	service, err := extauthz.New(extauthz.Options{Target: "127.0.0.1:9191"})
	if err != nil {
		log.Fatal(err)
	}
	defer service.Close()
	guard, err := auth.NewForward(auth.ForwardOptions{Authority: service})
	if err != nil {
		log.Print(err)
		return
	}
	_ = router.Server{Guards: []protocols.Guard{guard}}
}

// Whoever a guard has found out must also have a role.
func ExampleRequire() {
	keys := auth.NewAPIKeys(auth.APIKeysOptions{})
	rule := &auth.Require{Claims: map[string][]string{"realm_access.roles": {"admin", "operator"}}}
	_ = router.Server{Guards: []protocols.Guard{keys, rule}}
}
