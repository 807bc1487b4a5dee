package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// caTimeout bounds one request to the CA.
const caTimeout = time.Minute

// issuer orders certificates. It stands in certmagic.ACMEIssuer's place, which
// opens listeners of its own whenever nobody listens where it thinks one should.
type issuer struct {
	*Source
	http *http.Client
	log  *slog.Logger // the libraries' own steps, at debug
}

func (s *Source) newIssuer(log *slog.Logger) *issuer {
	return &issuer{s, &http.Client{
		Timeout: caTimeout,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			TLSClientConfig:     &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: caTimeout / 2,
			IdleConnTimeout:     caTimeout,
			MaxIdleConns:        2,
		},
	}, log}
}

// IssuerKey is part of the path that certificates are stored at.
func (i *issuer) IssuerKey() string { return i.issuerKey() }

// Issue orders a certificate. It tries one kind of challenge after the other.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	kinds := i.Challenges
	if len(kinds) == 0 {
		kinds = []string{TLSALPN01, HTTP01}
	}
	var errs []error
	for _, kind := range kinds {
		chain, err := i.order(ctx, csr, kind)
		if err == nil {
			return &certmagic.IssuedCertificate{Certificate: chain.ChainPEM, Metadata: chain}, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", kind, err))
		if problem, ok := errors.AsType[acme.Problem](err); !ok || !aboutChallenge(problem) || ctx.Err() != nil {
			break // another challenge would change nothing
		}
	}
	return nil, errors.Join(errs...)
}

// aboutChallenge reports whether the CA did not like the answer it got, or got none.
func aboutChallenge(p acme.Problem) bool {
	switch p.Type {
	case acme.ProblemTypeConnection, acme.ProblemTypeDNS, acme.ProblemTypeTLS, acme.ProblemTypeUnauthorized,
		acme.ProblemTypeIncorrectResponse, acme.ProblemTypeServerInternal:
		return true
	}
	return false
}

func (i *issuer) order(ctx context.Context, csr *x509.CertificateRequest, kind string) (acme.Certificate, error) {
	client := &acmez.Client{
		Client:           &acme.Client{Directory: i.ca(), HTTPClient: i.http, UserAgent: "oneport", Logger: i.log},
		ChallengeSolvers: map[string]acmez.Solver{kind: solver{i.Source}},
	}
	chains, err := i.orderWith(ctx, client, csr)
	if problem, ok := errors.AsType[acme.Problem](err); ok && problem.Type == acme.ProblemTypeAccountDoesNotExist {
		// The CA has lost it: a test CA was started again.
		if err := i.storage.Delete(ctx, i.accountKey()); err != nil {
			return acme.Certificate{}, err
		}
		chains, err = i.orderWith(ctx, client, csr)
	}
	switch {
	case err != nil:
		return acme.Certificate{}, err
	case len(chains) == 0:
		return acme.Certificate{}, errors.New("the CA gave no certificate")
	}
	return chains[0], nil
}

func (i *issuer) orderWith(ctx context.Context, client *acmez.Client, csr *x509.CertificateRequest) ([]acme.Certificate, error) {
	account, err := i.account(ctx, client.Client)
	if err != nil {
		return nil, err
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return nil, err
	}
	return client.ObtainCertificate(ctx, params)
}

// savedAccount is an account's file.
type savedAccount struct {
	Account acme.Account `json:"account"`
	Key     string       `json:"key"` // PEM
}

func (i *issuer) accountKey() string {
	name := "default"
	if i.Email != "" {
		name = certmagic.StorageKeys.Safe(i.Email)
	}
	return path.Join("acme", i.issuerKey(), "accounts", name+".json")
}

// account gives the account that is stored, or registers one.
func (i *issuer) account(ctx context.Context, client *acme.Client) (acme.Account, error) {
	if account, err := i.savedAccount(ctx); !errors.Is(err, fs.ErrNotExist) {
		return account, err
	}
	// Instances that share the storage share the account.
	lock := "acme_account_" + i.issuerKey()
	if err := i.storage.Lock(ctx, lock); err != nil {
		return acme.Account{}, fmt.Errorf("locking the storage: %w", err)
	}
	defer func() {
		if err := i.storage.Unlock(context.WithoutCancel(ctx), lock); err != nil {
			i.log.Warn("storage cannot be unlocked", "err", err)
		}
	}()
	if account, err := i.savedAccount(ctx); !errors.Is(err, fs.ErrNotExist) {
		return account, err
	}
	account, err := i.register(ctx, client)
	if err != nil {
		return account, fmt.Errorf("registering an account: %w", err)
	}
	return account, nil
}

func (i *issuer) savedAccount(ctx context.Context) (acme.Account, error) {
	file, err := i.storage.Load(ctx, i.accountKey())
	if err != nil {
		return acme.Account{}, err
	}
	var saved savedAccount
	if err := json.Unmarshal(file, &saved); err != nil {
		return acme.Account{}, fmt.Errorf("the stored account: %w", err)
	}
	saved.Account.PrivateKey, err = certmagic.PEMDecodePrivateKey([]byte(saved.Key))
	if err != nil {
		return acme.Account{}, fmt.Errorf("the stored account's key: %w", err)
	}
	return saved.Account, nil
}

func (i *issuer) register(ctx context.Context, client *acme.Client) (acme.Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return acme.Account{}, err
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if i.Email != "" {
		account.Contact = []string{"mailto:" + i.Email}
	}
	if e := i.ExternalAccount; e != nil {
		if err := account.SetExternalAccountBinding(ctx, client, acme.EAB{KeyID: e.KeyID, MACKey: i.macKey}); err != nil {
			return account, err
		}
	}
	account, err = client.NewAccount(ctx, account)
	if err != nil {
		return account, err
	}
	file, err := json.Marshal(savedAccount{account, string(keyPEM)})
	if err != nil {
		return account, err
	}
	return account, i.storage.Store(ctx, i.accountKey(), file)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
