package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoToken is what Options.Token wraps when it will have no token later either,
// as when a user has logged out. Sockets fail with it instead of trying again.
var ErrNoToken = errors.New("client: there is no token")

// tokens keeps the token that is in use, for all three protocols. It asks for one
// when there is none, or when the one there is was refused.
type tokens struct {
	fetch func(context.Context) (string, error) // nil: calls carry no token
	turn  chan struct{}                         // held by who fetches: one at a time

	mu      sync.Mutex // guards the fields below
	current string
	doubted time.Time // when a call was refused with a token that had just been fetched for it
}

// doubtFor is how long a call that is refused does not have a token fetched, after one
// was refused with a new one: it is not the token then, and who issues it is left in peace.
const doubtFor = 10 * time.Second

// replace is renew for a call, which may be refused whatever its token.
func (t *tokens) replace(ctx context.Context, old string) (string, error) {
	t.mu.Lock()
	now, calm := t.current, time.Since(t.doubted) < doubtFor
	t.mu.Unlock()
	if calm && now == old {
		return old, nil
	}
	return t.renew(ctx, old)
}

// doubt notes that a call was refused again, with a newer token.
func (t *tokens) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubted = time.Now()
}

func newTokens(fetch func(context.Context) (string, error)) *tokens {
	return &tokens{fetch: fetch, turn: make(chan struct{}, 1)}
}

// get gives the token in use; "" without error if calls carry none.
func (t *tokens) get(ctx context.Context) (string, error) { return t.renew(ctx, "") }

// renew gives a token that has taken the place of old. However many callers had
// old, it is fetched once.
func (t *tokens) renew(ctx context.Context, old string) (string, error) {
	if t.fetch == nil {
		return "", nil
	}
	if now := t.peek(); now != "" && now != old {
		return now, nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if now := t.peek(); now != "" && now != old {
		return now, nil
	}
	token, err := t.fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("client: fetch a token: %w", err)
	}
	if token == "" {
		return "", fmt.Errorf("%w: it is empty", ErrNoToken)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = token
	return token, nil
}

func (t *tokens) peek() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

// forget has the next call fetch a token, unless old is not in use any longer.
func (t *tokens) forget(old string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == old {
		t.current = ""
	}
}

// tokenOf is the token that one call was made with.
type tokenOf struct {
	mu    sync.Mutex // guards the field below: grpc-go asks in a goroutine of its choice
	token string
}

func (u *tokenOf) set(token string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.token = token
}

func (u *tokenOf) get() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.token
}
