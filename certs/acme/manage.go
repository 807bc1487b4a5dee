package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// renewalRatio is which part of its lifetime a certificate has left when
	// it is renewed: certmagic's own, which asks again before it orders.
	renewalRatio = certmagic.DefaultRenewalWindowRatio
	// lookAtMost is how long a domain is left alone: the clock may be set.
	lookAtMost = 6 * time.Hour
	// orderTimeout bounds one attempt, the wait for another instance's included.
	orderTimeout = 10 * time.Minute
	// ordersAtOnce bounds the orders that are open at the same time.
	ordersAtOnce = 4
)

// Watch orders what is missing, renews what nears its end, and reports to log.
// It returns when ctx has ended and everything it started, too.
func (s *Source) Watch(ctx context.Context, log *slog.Logger) {
	s.log.Store(log)
	k := s.newKeeper(log)
	defer k.close()
	var work sync.WaitGroup
	for _, site := range s.sites {
		work.Go(func() { k.keep(ctx, site) })
	}
	work.Wait()
}

// keeper keeps certificates fresh.
type keeper struct {
	*Source
	issuer *issuer
	cache  *certmagic.Cache // stays empty; a Config must have one
	config *certmagic.Config
	slots  chan struct{}
	log    *slog.Logger
}

func (s *Source) newKeeper(log *slog.Logger) *keeper {
	k := &keeper{Source: s, log: log, slots: make(chan struct{}, ordersAtOnce)}
	quiet := slog.New(demoted{log.Handler()})
	k.issuer = s.newIssuer(quiet)
	logger := zapLogger(quiet)
	k.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return k.config, nil },
		Logger:           logger,
	})
	k.config = certmagic.New(k.cache, certmagic.Config{
		RenewalWindowRatio: renewalRatio,
		Issuers:            []certmagic.Issuer{k.issuer},
		KeySource:          certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		Storage:            s.storage,
		OCSP:               certmagic.OCSPConfig{DisableStapling: true},
		DisableARI:         true,
		Logger:             logger,
	})
	return k
}

func (k *keeper) close() {
	k.cache.Stop()
	k.issuer.http.CloseIdleConnections()
}

// keep keeps one domain's certificate fresh until ctx ends.
func (k *keeper) keep(ctx context.Context, site *site) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := k.freshen(ctx, site, failures > 0)
		cert := site.current.Load()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && cert != nil:
			failures = 0
			timer.Reset(min(max(time.Until(due(cert)), time.Second), lookAtMost))
		default:
			wait := backoff(err, failures)
			failures++
			k.report(site, cert, err, wait)
			timer.Reset(wait)
		}
	}
}

// freshen takes what is stored, and has it renewed if it is due, or issued if
// there is none.
func (k *keeper) freshen(ctx context.Context, site *site, again bool) error {
	cert, err := k.stored(ctx, site.name)
	switch {
	case err == nil:
		k.take(site, cert) // another instance may have renewed it
		if time.Now().Before(due(cert)) {
			return nil
		}
	case errors.Is(err, fs.ErrNotExist):
	case !again:
		return err // another instance may be writing it
	}
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	switch {
	case err == nil:
		err = k.config.RenewCertSync(ctx, site.name, false)
	case errors.Is(err, fs.ErrNotExist):
		err = k.config.ObtainCertSync(ctx, site.name)
	default:
		err = k.config.RenewCertSync(ctx, site.name, true)
	}
	if err != nil {
		return err
	}
	if cert, err = k.stored(ctx, site.name); err == nil {
		k.take(site, cert)
	}
	return err
}

// take puts a certificate in use.
func (k *keeper) take(site *site, cert *tls.Certificate) {
	if old := site.current.Load(); old != nil && old.Leaf.Equal(cert.Leaf) {
		return
	}
	site.current.Store(cert)
	k.log.Info("certificate in use", "domain", site.name, "expires", cert.Leaf.NotAfter, "serial", cert.Leaf.SerialNumber.Text(16))
}

// due is when a certificate is renewed. certmagic counts the second that
// NotAfter names as valid.
func due(cert *tls.Certificate) time.Time {
	end := cert.Leaf.NotAfter.Add(time.Second)
	return end.Add(-time.Duration(float64(end.Sub(cert.Leaf.NotBefore)) * renewalRatio))
}

func (k *keeper) report(site *site, cert *tls.Certificate, err error, wait time.Duration) {
	text, attrs := "no certificate could be had", []any{"domain", site.name, "ca", k.ca(), "err", err, "again_in", wait.Round(time.Second)}
	if cert != nil {
		text, attrs = "certificate could not be renewed", append(attrs, "expires", cert.Leaf.NotAfter)
	}
	k.log.Error(text, attrs...)
}

// backoff is how long to wait after a failure, when there were that many
// before. A CA that cannot be reached counts no attempts and may be back soon.
// One that says no does count: Let's Encrypt allows five failed validations of
// a name in an hour, and an attempt may be two.
func backoff(err error, failures int) time.Duration {
	wait := min(10*time.Second<<min(failures, 10), 5*time.Minute)
	if _, refused := errors.AsType[acme.Problem](err); refused {
		waits := []time.Duration{time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour}
		wait = waits[min(failures, len(waits)-1)]
	}
	return wait + time.Duration(rand.Int64N(int64(wait)/10))
}
