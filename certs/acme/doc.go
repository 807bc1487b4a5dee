// Package acme gets certificates from a CA that speaks ACME (RFC 8555), as
// Let's Encrypt and step-ca do, and renews them.
//
//	srv := &router.Server{
//		Certs: &acme.Source{Domains: []string{"example.com"}, Email: "ops@example.com"},
//	}
//	err := srv.ListenAndServe(ctx)
//
// The rule: it never listens. The CA's challenges are answered on the ports
// that the server has anyway: TLS-ALPN-01 (RFC 8737) in its TLS handshake,
// HTTP-01 on plaintext HTTP, also on that of a TLS port. One of them must be
// what the CA reaches at port 443 or 80 of the domain.
//
// The port opens before there is a certificate. Until then a handshake for the
// domain ends with the alert "unrecognized name". Orders are for Domains alone,
// whatever names clients ask for.
//
// Several instances may share a Storage, behind one load balancer: one of them
// orders, any of them answers the CA, and all of them serve what was issued.
//
// The limits: no wildcards and no addresses, which would need another
// challenge, and no OCSP staples. Certificates, keys, orders and locks are
// certmagic's; its listeners, its defaults and its on-demand orders are not used.
package acme
