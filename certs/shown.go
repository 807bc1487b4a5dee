package certs

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
)

// Shown are the certificates that a loaded source shows to clients, each once: it is asked for
// each of its names as a client with keys of either kind would.
func Shown(source Source) (list []*x509.Certificate) {
	if source == nil {
		return nil
	}
	for _, name := range source.Names() {
		for _, scheme := range []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA256, tls.Ed25519} {
			cert, err := source.Certificate(&tls.ClientHelloInfo{
				ServerName: strings.Replace(name, "*", "any", 1), SupportedVersions: []uint16{tls.VersionTLS13},
				SignatureSchemes: []tls.SignatureScheme{scheme}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
			})
			if err != nil || cert == nil || cert.Leaf == nil {
				continue // a CA has not issued it yet
			}
			if !slices.ContainsFunc(list, cert.Leaf.Equal) {
				list = append(list, cert.Leaf)
			}
		}
	}
	return list
}
