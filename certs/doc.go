// Package certs is where certificates come from, and the one place that builds
// a server's tls.Config.
//
//	src := certs.Files("tls.crt", "tls.key") // or certs.Dev("certs/dev"), or certs.Static(cert)
//	if err := src.Load(); err != nil { ... }
//	cfg := certs.Config(src, certs.Options{})
//	if err := certs.Check(cfg, src.Names()); err != nil { ... } // a handshake with ourselves
//	go src.Watch(ctx, log)                                      // reload when the files change
//
// The rule: what is in use stays in use until something better was loaded
// whole. A pair that does not match, has expired or cannot be read is reported
// and changes nothing.
//
// certs/acme has certificates of a CA such as Let's Encrypt, renewed by itself.
//
// TLS is 1.2 and 1.3, forward secret and authenticated-encryption suites
// only; the order of curves is Go's, X25519MLKEM768 first. ALPN offers h2 and
// http/1.1.
package certs
