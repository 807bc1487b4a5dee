package auth

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// TicketKey names a ticket to a store: the SHA-256 of it, so that who reads the store
// cannot use what is there.
type TicketKey [sha256.Size]byte

// TicketStore keeps tickets until they are taken or have ended. It must be safe for
// concurrent use.
type TicketStore interface {
	// Put keeps a ticket of who until then. [ErrTooManyTickets] says that who has too many.
	Put(ctx context.Context, key TicketKey, who *protocols.Identity, until time.Time) error
	// Take gives whose the ticket is and forgets it, so that of several calls one
	// gets it. Nil means that there is none.
	Take(ctx context.Context, key TicketKey) (*protocols.Identity, error)
	// Waits says whether Take may wait, as for another process.
	Waits() bool
}

// ErrTooManyTickets says that somebody has more tickets than are kept for one.
var ErrTooManyTickets = errors.New("auth: too many tickets that were not used")

// TicketsOptions says how tickets are made. The zero value is fine.
type TicketsOptions struct {
	// Store keeps the tickets; nil means a new [MemoryTickets].
	Store TicketStore
	// TTL is how long a ticket is good; 0 means 30 s.
	TTL time.Duration
	// Parameter is that of the query which has the ticket; "" means "ticket".
	Parameter string
}

// Tickets let a browser, which can set no field of a WebSocket's handshake, in without a token
// in a URL. A page asks ServeHTTP for a ticket, with the credentials it has anyway,
// and opens the WebSocket with "?ticket=" and that. As a guard, Tickets takes
// each once, and the WebSocket is then for whom the ticket was made, until that identity
// expires. Calls that are no WebSocket handshakes have no ticket.
type Tickets struct{ opts TicketsOptions }

// NewTickets gives a guard that knows no ticket yet.
func NewTickets(opts TicketsOptions) *Tickets {
	if opts.Store == nil {
		opts.Store = new(MemoryTickets)
	}
	if opts.TTL <= 0 {
		opts.TTL = 30 * time.Second
	}
	if opts.Parameter == "" {
		opts.Parameter = "ticket"
	}
	return &Tickets{opts}
}

// ticketBytes are random: 128 bits, which nobody guesses in 30 s, nor ever.
const ticketBytes = 16

// Issue makes a ticket for who: 22 characters that need no escape in a query.
func (t *Tickets) Issue(ctx context.Context, who *protocols.Identity) (string, error) {
	if who == nil {
		return "", errors.New("auth: a ticket is for somebody")
	}
	var b [ticketBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("auth: %w", err)
	}
	ticket := base64.RawURLEncoding.EncodeToString(b[:])
	if err := t.opts.Store.Put(ctx, sha256.Sum256([]byte(ticket)), who, time.Now().Add(t.opts.TTL)); err != nil {
		return "", err
	}
	return ticket, nil
}

// ServeHTTP answers a POST with a ticket for the call's identity:
// {"ticket": "...", "expires_in": 30}. A guard before it has to find that out; without one it
// answers 401.
func (t *Tickets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		h.Set("Allow", http.MethodPost)
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}
	who := protocols.IdentityFrom(r.Context())
	if who == nil {
		status, text := (&protocols.Refusal{Reason: protocols.ReasonUnauthenticated}).HTTP(h)
		http.Error(w, text, status)
		return
	}
	ticket, err := t.Issue(r.Context(), who)
	switch {
	case errors.Is(err, ErrTooManyTickets):
		status, text := (&protocols.Refusal{Reason: protocols.ReasonTooMany, RetryAfter: t.opts.TTL}).HTTP(h)
		http.Error(w, text, status)
		return
	case err != nil: // of a store elsewhere
		status, text := (&protocols.Refusal{Reason: protocols.ReasonOverloaded}).HTTP(h)
		http.Error(w, text, status)
		return
	}
	h.Set("Content-Type", "application/json")
	// A ticket has nothing that JSON escapes. A client that has gone needs none.
	_, _ = fmt.Fprintf(w, "{\"ticket\":\"%s\",\"expires_in\":%d}\n", ticket, int(t.opts.TTL/time.Second))
}

// Admit implements [protocols.Guard].
func (t *Tickets) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return t.admit(ctx, call, true)
}

// AdmitNow implements [protocols.Quick].
func (t *Tickets) AdmitNow(ctx context.Context, call *protocols.Call) (context.Context, error) {
	return t.admit(ctx, call, !t.opts.Store.Waits())
}

func (t *Tickets) onceAsked() bool { return true }

// Clean implements [Cleaner]. An ordinary request may have a parameter of this name, which
// is not ours.
func (t *Tickets) Clean(call *protocols.Call) {
	if call.Protocol == protocols.WebSocket {
		call.Hide(t.opts.Parameter)
	}
}

func (t *Tickets) admit(ctx context.Context, call *protocols.Call, mayTake bool) (context.Context, error) {
	ticket, ok := t.find(call)
	if !ok {
		t.Clean(call)
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated}
	}
	if !mayTake {
		return ctx, protocols.ErrMustWait
	}
	t.Clean(call)
	who, err := t.opts.Store.Take(ctx, sha256.Sum256([]byte(ticket)))
	switch {
	case err != nil:
		return ctx, fmt.Errorf("auth: taking a ticket: %w", err)
	case who == nil:
		return ctx, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: "the ticket is unknown, used or too old"}
	case !who.Expires.IsZero() && !time.Now().Before(who.Expires):
		return ctx, &protocols.Refusal{Reason: protocols.ReasonExpired}
	}
	call.Identify(who)
	endAtExpiry(call, who, time.Now(), 0)
	return ctx, nil
}

// find gives the one ticket of a handshake.
func (t *Tickets) find(call *protocols.Call) (ticket string, ok bool) {
	if call.Protocol != protocols.WebSocket {
		return "", false
	}
	n := 0
	for part := range strings.SplitSeq(call.Query(), "&") {
		name, value, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err != nil || name != t.opts.Parameter {
			continue
		}
		n++
		ticket = value
	}
	return ticket, n == 1 && len(ticket) == base64.RawURLEncoding.EncodedLen(ticketBytes)
}

// Bounds of MemoryTickets.
const (
	mostTickets    = 10_000 // about 3 MB
	mostTicketsOne = 64     // of one identity, so that nobody alone drives out the others'
)

// MemoryTickets keeps tickets in memory: at most 10,000, and 64 for one identity. The oldest
// makes room for a new one. The zero value is ready to use, and must not be copied.
type MemoryTickets struct {
	mu    sync.Mutex // guards the fields below
	byKey map[TicketKey]*list.Element
	ages  *list.List     // of *keptTicket, the oldest first
	count map[string]int // by identity
}

type keptTicket struct {
	key   TicketKey
	who   *protocols.Identity
	owner string
	until time.Time
}

// Put implements [TicketStore].
func (m *MemoryTickets) Put(_ context.Context, key TicketKey, who *protocols.Identity, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey == nil {
		m.byKey, m.ages, m.count = make(map[TicketKey]*list.Element), list.New(), make(map[string]int)
	}
	now := time.Now()
	for e := m.ages.Front(); e != nil && !now.Before(ticketIn(e).until); e = m.ages.Front() {
		m.removeLocked(e)
	}
	owner := who.Key()
	if m.count[owner] >= mostTicketsOne {
		return ErrTooManyTickets
	}
	if m.ages.Len() >= mostTickets {
		m.removeLocked(m.ages.Front())
	}
	m.byKey[key] = m.ages.PushBack(&keptTicket{key, who, owner, until})
	m.count[owner]++
	return nil
}

// Take implements [TicketStore].
func (m *MemoryTickets) Take(_ context.Context, key TicketKey) (*protocols.Identity, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.byKey[key]
	if !ok {
		return nil, nil //nolint:nilnil // as the interface says
	}
	t := m.removeLocked(e)
	if !time.Now().Before(t.until) {
		return nil, nil //nolint:nilnil // as the interface says
	}
	return t.who, nil
}

// Waits implements [TicketStore].
func (m *MemoryTickets) Waits() bool { return false }

func (m *MemoryTickets) removeLocked(e *list.Element) *keptTicket {
	t := ticketIn(e)
	m.ages.Remove(e)
	delete(m.byKey, t.key)
	if m.count[t.owner]--; m.count[t.owner] == 0 {
		delete(m.count, t.owner)
	}
	return t
}

func ticketIn(e *list.Element) *keptTicket {
	return e.Value.(*keptTicket) //nolint:forcetypeassert // nothing else is put there
}
