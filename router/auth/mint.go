package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Mint makes tokens, for tests and for trying things out. Its methods may be called
// concurrently.
type Mint struct {
	key crypto.Signer
	alg string
	jwk jwk
}

// NewMint makes a mint with a private key of RSA, EC or Ed25519. alg is the algorithm; ""
// is RS256, the one of the curve, or EdDSA.
func NewMint(key crypto.Signer, alg string) (*Mint, error) {
	pub := Key{Public: key.Public()}
	if err := pub.check(); err != nil {
		return nil, err
	}
	if alg == "" {
		i := slices.IndexFunc(jwtAsymmetric, pub.fits)
		alg = jwtAsymmetric[i]
	}
	if !slices.Contains(jwtAsymmetric, alg) || !pub.fits(alg) {
		return nil, fmt.Errorf("algorithm %q does not go with the key: want some of %s", alg, strings.Join(jwtFitting(&pub), ", "))
	}
	j, err := jwkOf(pub.Public, alg)
	if err != nil {
		return nil, err
	}
	return &Mint{key, alg, j}, nil
}

func jwtFitting(k *Key) (algs []string) {
	for _, alg := range jwtAsymmetric {
		if k.fits(alg) {
			algs = append(algs, alg)
		}
	}
	return algs
}

// GenerateKey makes a private key for an algorithm: RSA keys have 2048 bits.
func GenerateKey(alg string) (crypto.Signer, error) {
	switch alg {
	case algES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case algES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case algES512:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case algEdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	if slices.Contains(jwtAsymmetric, alg) {
		return rsa.GenerateKey(rand.Reader, rsaLeast)
	}
	return nil, fmt.Errorf("algorithm %q: want some of %s", alg, strings.Join(jwtAsymmetric, ", "))
}

// ParsePrivateKey reads a private key in PEM: PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY.
func ParsePrivateKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no private key in PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%q in PEM: want PRIVATE KEY", block.Type)
	}
	if err != nil {
		return nil, errors.New("a broken private key in PEM")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T: want RSA, EC or Ed25519", key)
	}
	return signer, nil
}

// MarshalPrivateKey writes a private key in PEM.
func MarshalPrivateKey(key crypto.Signer) ([]byte, error) {
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}), nil
}

// Sign makes a token of claims, with the key's name in its header.
func (m *Mint) Sign(claims map[string]any) (string, error) {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(m.alg), jwt.MapClaims(maps.Clone(claims)))
	t.Header["kid"] = m.jwk.Kid
	return t.SignedString(m.key)
}

// Algorithm is the one the mint signs with.
func (m *Mint) Algorithm() string { return m.alg }

// KeyID is the key's name: its thumbprint (RFC 7638).
func (m *Mint) KeyID() string { return m.jwk.Kid }

// Key is the public key, for a [KeySet].
func (m *Mint) Key() Key { return Key{ID: m.jwk.Kid, Algorithm: m.alg, Public: m.key.Public()} }

// PublicPEM is the public key in PEM.
func (m *Mint) PublicPEM() ([]byte, error) {
	b, err := x509.MarshalPKIXPublicKey(m.key.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}), nil
}

// MarshalJWKS writes the public keys of mints as a JWK set.
func MarshalJWKS(mints ...*Mint) ([]byte, error) {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, m := range mints {
		set.Keys = append(set.Keys, m.jwk)
	}
	b, err := json.MarshalIndent(set, "", "  ")
	return append(b, '\n'), err
}
