package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// JWKSOptions configures a [JWKS]. URL is required.
type JWKSOptions struct {
	// URL is where the issuer publishes its keys: https, or http on this machine.
	URL string
	// Insecure allows http elsewhere: whoever is on the way can then make tokens.
	Insecure bool
	// Every is how often they are fetched if the answer does not say (Cache-Control: max-age, from
	// 1 min to 24 h). Zero is 1 h.
	Every time.Duration
	// Client fetches. Nil is one of our own, which uses no proxy and follows three
	// redirects, none away from https. Whichever it is, it has 5 s.
	Client *http.Client
	// Log receives changes: keys that cannot be fetched at Warn, once, and all else at Info. Nil discards.
	Log *slog.Logger
}

// JWKS are keys that an issuer publishes (RFC 7517, 5), and changes from time to time. Once
// it has keys it keeps them, whatever the issuer answers, until there are better ones.
type JWKS struct {
	opts   JWKSOptions
	client *http.Client
	set    atomic.Pointer[KeySet] // nil until the first were fetched
	gen    atomic.Uint64
	kick   chan struct{} // has Run fetch now
	first  chan struct{} // closed when Run has tried once

	fetching sync.Mutex // one at a time; before mu

	mu      sync.Mutex    // guards the fields below
	tried   time.Time     // when the last fetch began
	flight  chan struct{} // closed when the fetch that was asked for is over; nil if none was
	waiting int           // calls that wait for it
	good    time.Time     // when the last fetch succeeded
	every   time.Duration // until the next
	err     error         // of the last fetch
	said    string        // the kind of error that was logged last
	fetches uint64
}

// Bounds of a JWKS.
const (
	jwksTimeout = 5 * time.Second  // of a fetch, and of a call's wait for it
	jwksBody    = 1 << 20          // bytes of an answer
	jwksAtOnce  = 10 * time.Second // between two fetches that unknown keys bring about
	jwksWaiting = 64               // calls with unknown keys that wait for a fetch
	jwksEvery   = time.Hour
	jwksLeast   = time.Minute // of max-age, and the longest between two tries after a failure
	jwksMost    = 24 * time.Hour
	jwksRetry   = time.Second // after the first failure; doubled with each
)

// NewJWKS makes keys that are fetched from a URL once [JWKS.Run] does.
func NewJWKS(opts JWKSOptions) (*JWKS, error) {
	u, err := url.Parse(opts.URL)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("a JWKS needs a URL, as https://id.example.com/jwks.json")
	case u.Scheme == schemeHTTPS:
	case u.Scheme != schemeHTTP:
		return nil, fmt.Errorf("scheme %q of a JWKS's URL: want https", u.Scheme)
	case !opts.Insecure && !jwksLocal(u.Hostname()):
		return nil, errors.New("keys of a JWKS come by https: whoever is on the way could make tokens")
	}
	opts.Every = cmp.Or(opts.Every, jwksEvery)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	j := &JWKS{opts: opts, client: opts.Client, kick: make(chan struct{}, 1), first: make(chan struct{})}
	if j.client == nil {
		j.client = &http.Client{
			// A connection an hour is not worth keeping.
			Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true},
			CheckRedirect: func(next *http.Request, via []*http.Request) error { return jwksRedirect(opts.Insecure, next, via) },
		}
	}
	return j, nil
}

func jwksLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func jwksRedirect(insecure bool, next *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("more than 3 redirects")
	}
	if next.URL.Scheme == schemeHTTPS || insecure && via[0].URL.Scheme == schemeHTTP ||
		via[0].URL.Scheme == schemeHTTP && jwksLocal(next.URL.Hostname()) {
		return nil
	}
	return errors.New("a redirect away from https")
}

// Find implements Keys. It waits, at most 5 s, for the first keys, or for new
// ones if kid is not known and nobody has asked for such a kid in the last 10 s.
func (j *JWKS) Find(ctx context.Context, kid string) ([]Key, error) {
	if j.set.Load() == nil {
		if !jwksWait(ctx, j.first) || j.set.Load() == nil {
			return nil, ErrKeysUnavailable
		}
	}
	if found := j.set.Load().find(kid); len(found) > 0 {
		return found, nil
	}
	done := j.ask()
	if done == nil {
		return nil, ErrUnknownKey // known to be unknown
	}
	defer j.leave()
	jwksWait(ctx, done)
	if found := j.set.Load().find(kid); len(found) > 0 {
		return found, nil
	}
	return nil, ErrUnknownKey
}

// ask has Run fetch, and gives what to wait for; nil if it is too early, or too many wait.
func (j *JWKS) ask() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.flight == nil {
		if time.Since(j.tried) < jwksAtOnce {
			return nil
		}
		j.flight, j.tried = make(chan struct{}), time.Now()
		select {
		case j.kick <- struct{}{}:
		default:
		}
	}
	if j.waiting == jwksWaiting {
		return nil
	}
	j.waiting++
	return j.flight
}

func (j *JWKS) leave() {
	j.mu.Lock()
	j.waiting--
	j.mu.Unlock()
}

func jwksWait(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
	}
	t := time.NewTimer(jwksTimeout)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// Generation implements Keys.
func (j *JWKS) Generation() uint64 { return j.gen.Load() }

// Ready says what is wrong: no keys yet, or stale ones, which should have been fetched
// again long ago. Tokens are checked with those all the same.
func (j *JWKS) Ready() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.good.IsZero() && j.err == nil:
		return ErrKeysUnavailable
	case j.good.IsZero():
		return fmt.Errorf("%w: %w", ErrKeysUnavailable, j.err)
	case time.Since(j.good) > 2*j.every:
		return errors.Join(fmt.Errorf("auth: keys are stale, fetched %s ago", time.Since(j.good).Round(time.Second)), j.err)
	}
	return nil
}

// JWKSStats are counts at one moment.
type JWKSStats struct {
	Keys    int       // in use
	Fetches uint64    // so far, failed ones among them
	Fetched time.Time // when the last one succeeded
	Err     error     // of the last one
}

// Stats returns the counts.
func (j *JWKS) Stats() JWKSStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := JWKSStats{Fetches: j.fetches, Fetched: j.good, Err: j.err}
	if set := j.set.Load(); set != nil {
		st.Keys = len(set.keys)
	}
	return st
}

// Run fetches keys, and again when it is time, until ctx ends. It is called once.
func (j *JWKS) Run(ctx context.Context) {
	var once sync.Once
	failures := 0
	for {
		wait := j.next(j.Fetch(ctx), &failures)
		once.Do(func() { close(j.first) })
		if !j.pause(ctx, wait) {
			return
		}
	}
}

// next is how long to wait after a fetch: a tenth less at random, so that
// instances do not ask at once.
func (j *JWKS) next(err error, failures *int) time.Duration {
	if err != nil {
		*failures = min(*failures+1, 10)
		wait := min(jwksRetry<<(*failures-1), jwksLeast)
		return wait - rand.N(wait/2)
	}
	*failures = 0
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.every - rand.N(j.every/10)
}

// pause waits for d, or until an unknown key is asked for.
func (j *JWKS) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-j.kick:
	}
	return ctx.Err() == nil
}

// Fetch fetches keys now, in the caller's goroutine. It is for programs that do not Run.
// After an error the keys are what they were.
func (j *JWKS) Fetch(ctx context.Context) error {
	j.fetching.Lock()
	defer j.fetching.Unlock()
	j.mu.Lock()
	j.tried = time.Now()
	j.fetches++
	j.mu.Unlock()

	set, every, err := j.get(ctx)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() { // once the keys are in use: who has waited looks for its own among them
		if j.flight != nil {
			close(j.flight)
			j.flight = nil
		}
	}()
	j.err = err
	if err != nil {
		j.failedLocked(err)
		return err
	}
	j.good, j.every = time.Now(), every
	j.takeLocked(set)
	return nil
}

// failedLocked logs the first failure of its kind: its text may differ each time.
func (j *JWKS) failedLocked(err error) {
	kind := "unreachable"
	if f, ok := errors.AsType[*jwksError](err); ok {
		kind = f.kind
	}
	if errors.Is(err, context.Canceled) || kind == j.said {
		return
	}
	j.said = kind
	j.opts.Log.Warn("keys of tokens cannot be fetched", "url", j.redacted(), "err", err, "have", j.set.Load() != nil)
}

// takeLocked puts new keys in use.
func (j *JWKS) takeLocked(set *KeySet) {
	old := j.set.Load()
	if old != nil && reflect.DeepEqual(old.keys, set.keys) {
		if j.said != "" {
			j.opts.Log.Info("keys of tokens can be fetched again", "url", j.redacted())
		}
		j.said = ""
		return
	}
	j.said = ""
	j.set.Store(set)
	if old != nil && !set.hasAll(old) {
		j.gen.Add(1) // after the keys: who sees the new number finds them
	}
	j.opts.Log.Info("keys of tokens fetched", "url", j.redacted(), "keys", len(set.keys))
}

// hasAll reports whether all of old are in s.
func (s *KeySet) hasAll(old *KeySet) bool {
	for i := range old.keys {
		found := false
		for k := range s.keys {
			found = found || reflect.DeepEqual(old.keys[i], s.keys[k])
		}
		if !found {
			return false
		}
	}
	return true
}

func (j *JWKS) redacted() string {
	u, err := url.Parse(j.opts.URL)
	if err != nil {
		return ""
	}
	u.RawQuery = ""
	return u.Redacted()
}

// jwksError is an answer that has no keys: one of a few kinds.
type jwksError struct {
	kind string
	err  error
}

func (e *jwksError) Error() string { return e.err.Error() }
func (e *jwksError) Unwrap() error { return e.err }

// get asks for the keys.
func (j *JWKS) get(ctx context.Context) (*KeySet, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.opts.URL, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := j.client.Do(req)
	if named, ok := errors.AsType[*url.Error](err); ok {
		err = named.Err // it says all but the URL, whose query may be a secret: readiness is anybody's to ask for
	}
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, 0, &jwksError{"status", fmt.Errorf("the answer is %d", res.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, jwksBody+1))
	if err != nil {
		return nil, 0, err
	}
	if len(body) > jwksBody {
		return nil, 0, &jwksError{"size", fmt.Errorf("the answer is longer than %d bytes", jwksBody)}
	}
	set, err := KeysFromJWKS(body)
	if err != nil {
		return nil, 0, &jwksError{"content", err}
	}
	return set, jwksMaxAge(res.Header, j.opts.Every), nil
}

// jwksMaxAge is how long an answer is good (RFC 9111, 5.2.2.1).
func jwksMaxAge(h http.Header, without time.Duration) time.Duration {
	for _, line := range h.Values("Cache-Control") {
		for d := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(d), "=")
			if !strings.EqualFold(name, "max-age") {
				continue
			}
			if s, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 64); err == nil {
				return time.Duration(min(max(s, int64(jwksLeast/time.Second)), int64(jwksMost/time.Second))) * time.Second
			}
		}
	}
	return without
}
