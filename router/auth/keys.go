package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Keys are what tokens are checked with: a [KeySet], a [JWKS], or a [Secret]. Its
// methods may be called concurrently.
type Keys interface {
	// Find gives the keys for tokens that name kid; "" is a token that names
	// none. It may wait, as long as ctx lets it. Its errors are ErrUnknownKey and
	// ErrKeysUnavailable.
	Find(ctx context.Context, kid string) ([]Key, error)
	// Generation changes when a key is taken away: what was checked with it is
	// checked again.
	Generation() uint64
}

// Errors of Keys.
var (
	ErrUnknownKey      = errors.New("auth: no such key")
	ErrKeysUnavailable = errors.New("auth: no keys to check tokens with")
)

// Key is one key.
type Key struct {
	// ID is the name by which tokens ask for it (kid). A key without a name is for tokens
	// of any.
	ID string
	// Algorithm is the only one it is for. "" is any that its kind allows.
	Algorithm string
	// Public is an *rsa.PublicKey of 2048 to 8192 bits, an *ecdsa.PublicKey on P-256, P-384
	// or P-521, or an ed25519.PublicKey.
	Public crypto.PublicKey

	secret []byte // of a Secret, which has no Public
}

// mostTried is how many keys a token is tried with at most, or strangers could make
// one token as dear as a set has keys.
const mostTried = 4

// The sizes of RSA keys: 2048 is the least by RFC 7518, 3.3, and a check with 8192 takes
// ten times as long as one with 2048.
const (
	rsaLeast = 2048
	rsaMost  = 8192
)

// fits says whether a token signed with alg may be checked with the key: an RSA key never
// is a secret, and an elliptic curve belongs to one algorithm.
func (k *Key) fits(alg string) bool {
	if k.Algorithm != "" && k.Algorithm != alg {
		return false
	}
	if strings.HasPrefix(alg, "HS") {
		return len(k.secret) >= secretSize(alg) && k.Public == nil
	}
	switch pub := k.Public.(type) {
	case *rsa.PublicKey:
		bits := pub.N.BitLen()
		return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && bits >= rsaLeast && bits <= rsaMost
	case *ecdsa.PublicKey:
		return alg == ecAlgorithm(pub.Curve) && alg != ""
	case ed25519.PublicKey:
		return alg == algEdDSA && len(pub) == ed25519.PublicKeySize
	}
	return false
}

// verifier is the key as golang-jwt takes it.
func (k *Key) verifier() any {
	if k.Public == nil {
		return k.secret
	}
	return k.Public
}

const (
	algEdDSA = "EdDSA"
	algHS256 = "HS256"
	algES256 = "ES256"
	algES384 = "ES384"
	algES512 = "ES512"
	algRS256 = "RS256"
)

func ecAlgorithm(c elliptic.Curve) string {
	switch c {
	case elliptic.P256():
		return algES256
	case elliptic.P384():
		return algES384
	case elliptic.P521():
		return algES512
	}
	return ""
}

// check says what is wrong with a key that is to be used.
func (k *Key) check() error {
	switch pub := k.Public.(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < rsaLeast || n > rsaMost {
			return fmt.Errorf("an RSA key of %d bits: want %d to %d", n, rsaLeast, rsaMost)
		}
	case *ecdsa.PublicKey:
		if ecAlgorithm(pub.Curve) == "" {
			return fmt.Errorf("curve %s: want P-256, P-384 or P-521", pub.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of type %T: want RSA, EC or Ed25519", pub)
	}
	return nil
}

// KeySet is a set of public keys that never changes.
type KeySet struct{ keys []Key }

// NewKeySet makes a set of at least one and at most 100 keys.
func NewKeySet(keys ...Key) (*KeySet, error) {
	if len(keys) == 0 || len(keys) > keySetMost {
		return nil, fmt.Errorf("%d keys: want 1 to %d", len(keys), keySetMost)
	}
	for i := range keys {
		if err := keys[i].check(); err != nil {
			return nil, err
		}
	}
	return &KeySet{slices.Clone(keys)}, nil
}

// keySetMost is how many keys a set has at most.
const keySetMost = 100

// Find implements Keys.
func (s *KeySet) Find(_ context.Context, kid string) ([]Key, error) {
	if found := s.find(kid); len(found) > 0 {
		return found, nil
	}
	return nil, ErrUnknownKey
}

// find gives the keys of that name and those without one; all for a token without.
func (s *KeySet) find(kid string) (found []Key) {
	for i := range s.keys {
		if k := &s.keys[i]; kid == "" || k.ID == kid || k.ID == "" {
			found = append(found, *k)
		}
	}
	return found
}

// Generation implements Keys.
func (*KeySet) Generation() uint64 { return 0 }

// Keys are the set's.
func (s *KeySet) Keys() []Key { return slices.Clone(s.keys) }

// ReadKeys reads public keys out of PEM files, as [KeysFromPEM] does.
func ReadKeys(files ...string) (*KeySet, error) {
	var all []Key
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		set, err := KeysFromPEM(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, set.keys...)
	}
	return NewKeySet(all...)
}

// KeysFromPEM reads public keys, or those of certificates, in PEM: PUBLIC KEY, RSA PUBLIC
// KEY and CERTIFICATE. They have no names: tokens may name any.
func KeysFromPEM(data []byte) (*KeySet, error) {
	var keys []Key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key := Key{}
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			key.Public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			key.Public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				key.Public = cert.PublicKey
			}
		default:
			err = errors.New("want PUBLIC KEY or CERTIFICATE; who checks tokens needs no private key")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", block.Type, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key in PEM")
	}
	return NewKeySet(keys...)
}

// Secret is a key that whoever checks tokens shares with whoever makes them (HMAC): it
// can make them too. It goes with HS256, HS384 and HS512 alone.
type Secret struct{ keys []Key }

// secretLeast is the size of the shortest secret: that of the hash (RFC 7518, 3.2).
const secretLeast = 32

// secretSize is the shortest secret of an algorithm.
func secretSize(alg string) int {
	switch alg {
	case "HS384":
		return 48
	case "HS512":
		return 64
	}
	return secretLeast
}

// NewSecret makes keys of a secret of at least 32 bytes; HS384 needs 48, HS512 64. It
// should come from a random generator: what people can remember can be guessed.
func NewSecret(secret []byte) (*Secret, error) {
	if len(secret) < secretLeast {
		return nil, fmt.Errorf("a secret of %d bytes: want at least %d", len(secret), secretLeast)
	}
	return &Secret{[]Key{{secret: slices.Clone(secret)}}}, nil
}

// Find implements Keys.
func (s *Secret) Find(context.Context, string) ([]Key, error) { return s.keys, nil }

// Generation implements Keys.
func (*Secret) Generation() uint64 { return 0 }
