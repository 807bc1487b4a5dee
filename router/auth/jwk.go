package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// jwk is one key of a set (RFC 7517, 4; RFC 7518, 6; RFC 8037, 2).
type jwk struct {
	Kty    string   `json:"kty"`
	Kid    string   `json:"kid,omitempty"`
	Use    string   `json:"use,omitempty"`
	Alg    string   `json:"alg,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	Crv    string   `json:"crv,omitempty"`
	N      string   `json:"n,omitempty"`
	E      string   `json:"e,omitempty"`
	X      string   `json:"x,omitempty"`
	Y      string   `json:"y,omitempty"`
	D      string   `json:"d,omitempty"` // of a private key, which is no use to anybody who knows better
}

// errJWKSkip is a key that is for something else.
var errJWKSkip = errors.New("not for signatures of tokens")

// KeysFromJWKS reads a set of keys in JSON (RFC 7517, 5). Keys for other uses, of
// other kinds, weak or broken ones are left out; a set of which none is left, or of more than
// 100, is an error.
func KeysFromJWKS(data []byte) (*KeySet, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("no JWK set: %w", err)
	}
	if len(doc.Keys) > keySetMost {
		return nil, fmt.Errorf("a JWK set of %d keys: want at most %d", len(doc.Keys), keySetMost)
	}
	var keys []Key
	var last error
	for _, raw := range doc.Keys {
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			last = errors.New("no JWK")
			continue
		}
		key, err := k.key()
		if err == nil {
			err = key.check()
		}
		if err != nil {
			last = err
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		if last != nil {
			return nil, fmt.Errorf("a JWK set without a key of use: %w", last)
		}
		return nil, errors.New("a JWK set without keys")
	}
	return NewKeySet(keys...)
}

func (k *jwk) key() (Key, error) {
	key := Key{ID: k.Kid, Algorithm: k.Alg}
	if k.Use != "" && k.Use != "sig" || len(k.KeyOps) > 0 && !slices.Contains(k.KeyOps, "verify") {
		return key, errJWKSkip
	}
	if k.D != "" {
		return key, errors.New("a private key, which by now others have too")
	}
	if len(k.Kid) > kidLimit {
		return key, fmt.Errorf("a kid of %d bytes: want at most %d", len(k.Kid), kidLimit)
	}
	var err error
	switch k.Kty {
	case "RSA":
		key.Public, err = k.rsa()
	case "EC":
		key.Public, err = k.ec()
	case "OKP":
		key.Public, err = k.okp()
	default:
		err = errJWKSkip // oct among them: what everybody can fetch is no secret
	}
	return key, err
}

func (k *jwk) rsa() (*rsa.PublicKey, error) {
	n, err := jwkBytes(k.N, rsaMost/8)
	if err != nil {
		return nil, err
	}
	e, err := jwkBytes(k.E, 4)
	if err != nil {
		return nil, err
	}
	exp := new(big.Int).SetBytes(e).Int64()
	if exp < 3 || exp > 1<<31-1 || exp&1 == 0 {
		return nil, errors.New("an RSA key with a bad exponent")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exp)}, nil
}

func (k *jwk) ec() (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch k.Crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, errJWKSkip
	}
	size := (curve.Params().BitSize + 7) / 8
	point := []byte{4} // uncompressed (SEC 1, 2.3.3)
	for _, s := range []string{k.X, k.Y} {
		b, err := jwkBytes(s, size)
		if err != nil {
			return nil, err
		}
		if len(b) != size {
			return nil, errors.New("an EC key with a bad coordinate")
		}
		point = append(point, b...)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

func (k *jwk) okp() (ed25519.PublicKey, error) {
	if k.Crv != "Ed25519" {
		return nil, errJWKSkip
	}
	x, err := jwkBytes(k.X, ed25519.PublicKeySize)
	if err == nil && len(x) != ed25519.PublicKeySize {
		err = errors.New("an Ed25519 key with a bad size")
	}
	return x, err
}

// jwkBytes decodes a member of at most most bytes.
func jwkBytes(s string, most int) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 || len(b) > most {
		return nil, errors.New("a JWK with a bad member")
	}
	return b, nil
}

// jwkOf is a public key as a JWK, named by its thumbprint (RFC 7638).
func jwkOf(pub crypto.PublicKey, alg string) (jwk, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	var k jwk
	var canonical string
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		k = jwk{Kty: "RSA", N: b64(pub.N.Bytes()), E: b64(big.NewInt(int64(pub.E)).Bytes())}
		canonical = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, k.E, k.N)
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			return k, err
		}
		half := (len(point) - 1) / 2
		k = jwk{Kty: "EC", Crv: pub.Params().Name, X: b64(point[1 : 1+half]), Y: b64(point[1+half:])}
		canonical = fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, k.Crv, k.X, k.Y)
	case ed25519.PublicKey:
		k = jwk{Kty: "OKP", Crv: "Ed25519", X: b64(pub)}
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, k.X)
	default:
		return k, fmt.Errorf("a key of type %T: want RSA, EC or Ed25519", pub)
	}
	sum := sha256.Sum256([]byte(canonical))
	k.Kid, k.Use, k.Alg = b64(sum[:]), "sig", alg
	return k, nil
}
