// Package admin is what an operator sees of a running port, and does to it: the open
// connections and calls, who is ended, routes, upstreams, limits, the configuration in
// effect, health, reload and drain. One [Service] is served over gRPC
// (oneport.admin.v1.Admin) and as JSON over REST, on a port of its own:
//
//	open := protocols.NewCalls()
//	srv := &router.Server{Addr: ":443", Calls: open, Guards: []protocols.Guard{open}} // and so on
//	api, err := admin.New(admin.Options{Port: srv, Calls: open})
//	...
//	rules, err := admin.NewRules(admin.RulesOptions{Token: token})
//	own := &router.Server{
//		Listeners: []router.Listener{{Addr: "127.0.0.1:9901", Plaintext: true}},
//		Guards:    []protocols.Guard{rules},
//		HTTP:      api.HTTP(),
//	}
//	adminv1.RegisterAdminServer(own, api)
//
// The rule: loopback is no protection. A browser on the same machine reaches it for any
// page that it shows, so [Rules] ask for a Host that is known, no foreign Origin, and for
// whatever changes something the token.
package admin
