package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"time"
)

// How long certificates of a CA are valid. Apple's systems refuse leaves of
// more than 825 days.
const (
	caValid   = 5 * 365 * 24 * time.Hour
	leafValid = 90 * 24 * time.Hour
)

// CA is a certificate authority for development and tests.
type CA struct{ cert tls.Certificate }

// NewCA makes an authority with a key of its own, in memory.
func NewCA(name string) (*CA, error) {
	cert, err := create(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              time.Now().Add(caValid),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}, nil)
	return &CA{cert}, err
}

// Server issues a certificate for host names and IP addresses, the first of
// which is its common name.
func (ca *CA) Server(hosts ...string) (tls.Certificate, error) {
	tmpl := leaf(hosts[0], x509.ExtKeyUsageServerAuth)
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return create(tmpl, &ca.cert)
}

// Client issues a client's certificate with that common name.
func (ca *CA) Client(name string) (tls.Certificate, error) {
	return create(leaf(name, x509.ExtKeyUsageClientAuth), &ca.cert)
}

// Pool is a pool with this authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert.Leaf)
	return pool
}

// PEM is the authority's certificate, for clients to trust.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Certificate[0]})
}

func (ca *CA) signed(leaf *x509.Certificate) bool {
	return leaf.CheckSignatureFrom(ca.cert.Leaf) == nil
}

func leaf(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		NotAfter:    time.Now().Add(leafValid),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
}

// create makes a key and a certificate signed by ca, or by itself.
func create(tmpl *x509.Certificate, ca *tls.Certificate) (tls.Certificate, error) {
	fail := func(err error) (tls.Certificate, error) {
		return tls.Certificate{}, fmt.Errorf("certs: making a certificate for %s: %w", tmpl.Subject.CommonName, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	tmpl.NotBefore = time.Now().Add(-time.Hour) // for clocks that are behind
	parent, signer := tmpl, crypto.PrivateKey(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return fail(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, nil
}
