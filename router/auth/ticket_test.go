package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

func newTicket(t testing.TB, tickets *auth.Tickets, who *protocols.Identity) string {
	t.Helper()
	ticket, err := tickets.Issue(t.Context(), who)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func TestTicketIsTakenOnce(t *testing.T) {
	tickets := auth.NewTickets(auth.TicketsOptions{})
	who := &protocols.Identity{Subject: "alice", Issuer: "https://id.example.com", By: "jwt", Expires: time.Now().Add(time.Hour)}
	ticket := newTicket(t, tickets, who)
	call := newCall(t, protocols.WebSocket, "/ws?a=1&ticket="+ticket+"&b=2")
	if err := askGuard(t, tickets, call); err != nil || call.Identity() != who {
		t.Fatalf("%v, %v", err, call.Identity())
	}
	if got := call.Shown("/ws?a=1&ticket=" + ticket + "&b=2"); got != "/ws?a=1&b=2" {
		t.Errorf("a server gets %s", got)
	}
	call = newCall(t, protocols.WebSocket, "/ws?ticket="+ticket)
	wantRefusal(t, askGuard(t, tickets, call), protocols.ReasonUnauthenticated)
	if got := call.Shown("/ws?ticket=" + ticket); got != "/ws" {
		t.Errorf("a server gets %s", got)
	}
}

func TestTicketIsRefused(t *testing.T) {
	tickets := auth.NewTickets(auth.TicketsOptions{})
	who := &protocols.Identity{Subject: "alice"}
	for name, tc := range map[string]struct {
		protocol protocols.Protocol
		query    string // T is the ticket
		shown    string
	}{
		"HTTP":          {protocols.HTTP, "ticket=T", "ticket=T"}, // a parameter of the application's
		"gRPC":          {protocols.GRPC, "ticket=T", "ticket=T"},
		"twice":         {protocols.WebSocket, "ticket=T&ticket=T", ""},
		"twice, hidden": {protocols.WebSocket, "ticket=T&%74icket=x", ""},
		"none":          {protocols.WebSocket, "x=T", "x=T"},
		"empty":         {protocols.WebSocket, "ticket=", ""},
		"no value":      {protocols.WebSocket, "ticket", ""},
		"longer":        {protocols.WebSocket, "ticket=TT", ""},
		"unknown":       {protocols.WebSocket, "ticket=AAAAAAAAAAAAAAAAAAAAAA", ""},
		"another name":  {protocols.WebSocket, "Ticket=T", "Ticket=T"},
		"a megabyte":    {protocols.WebSocket, "ticket=" + strings.Repeat("A", 1<<20), ""},
	} {
		t.Run(name, func(t *testing.T) {
			ticket := newTicket(t, tickets, who)
			path := "/?" + strings.ReplaceAll(tc.query, "T", ticket)
			call := newCall(t, tc.protocol, path)
			wantRefusal(t, askGuard(t, tickets, call), protocols.ReasonUnauthenticated)
			want := strings.TrimSuffix("/?"+strings.ReplaceAll(tc.shown, "T", ticket), "?")
			if got := call.Shown(path); got != want {
				t.Errorf("a server gets %.100s, want %.100s", got, want)
			}
			call = newCall(t, protocols.WebSocket, "/?ticket="+ticket)
			if err := askGuard(t, tickets, call); err != nil {
				t.Errorf("the ticket is spent: %v", err)
			}
		})
	}
}

func TestTicketsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets := auth.NewTickets(auth.TicketsOptions{})
		who := &protocols.Identity{Subject: "alice", Expires: time.Now().Add(time.Minute)}
		good, late := newTicket(t, tickets, who), newTicket(t, tickets, who)
		time.Sleep(30*time.Second - time.Nanosecond)
		call := newCall(t, protocols.WebSocket, "/ws?ticket="+good)
		if err := askGuard(t, tickets, call); err != nil {
			t.Fatal(err)
		}
		var ended atomic.Pointer[protocols.Refusal]
		call.OnEnd(ended.Store)
		time.Sleep(time.Nanosecond)
		wantRefusal(t, askGuard(t, tickets, newCall(t, protocols.WebSocket, "/ws?ticket="+late)), protocols.ReasonUnauthenticated)

		// The identity that it was made for ends before the ticket does.
		time.Sleep(10 * time.Second)
		last := newTicket(t, tickets, who)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if why := ended.Load(); why == nil || why.Reason != protocols.ReasonExpired {
			t.Errorf("the WebSocket outlives its identity: %v", why)
		}
		wantRefusal(t, askGuard(t, tickets, newCall(t, protocols.WebSocket, "/ws?ticket="+last)), protocols.ReasonExpired)
	})
}

func TestTicketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets := auth.NewTickets(auth.TicketsOptions{})
		greedy := &protocols.Identity{Subject: "greedy", By: "keys"}
		var err error
		n := 0
		for ; err == nil; n++ {
			_, err = tickets.Issue(t.Context(), greedy)
		}
		if !errors.Is(err, auth.ErrTooManyTickets) || n != 65 {
			t.Fatalf("%d tickets: %v", n, err)
		}
		first := newTicket(t, tickets, &protocols.Identity{Subject: "first", By: "keys"})
		var next string
		for i := range 10_000 {
			ticket := newTicket(t, tickets, &protocols.Identity{Subject: fmt.Sprint(i), By: "keys"})
			if i == 0 {
				next = ticket
			}
		}
		wantRefusal(t, askGuard(t, tickets, newCall(t, protocols.WebSocket, "/?ticket="+first)), protocols.ReasonUnauthenticated)
		if err := askGuard(t, tickets, newCall(t, protocols.WebSocket, "/?ticket="+next)); err != nil {
			t.Errorf("more than the oldest had to go: %v", err)
		}
		for range 3 { // what has ended counts no longer
			time.Sleep(31 * time.Second)
			for range 64 {
				newTicket(t, tickets, greedy)
			}
		}
	})
}

// Of many who bring the same ticket one gets in.
func TestTicketRace(t *testing.T) {
	tickets := auth.NewTickets(auth.TicketsOptions{})
	ticket := newTicket(t, tickets, &protocols.Identity{Subject: "alice"})
	var admitted atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		call := newCall(t, protocols.WebSocket, "/?ticket="+ticket)
		all.Go(func() {
			if _, err := tickets.Admit(t.Context(), call); err == nil {
				admitted.Add(1)
			}
		})
	}
	all.Wait()
	if admitted.Load() != 1 {
		t.Errorf("%d got in", admitted.Load())
	}
}

func TestTicketsHandler(t *testing.T) {
	tickets := auth.NewTickets(auth.TicketsOptions{})
	who := &protocols.Identity{Subject: "alice"}
	post := func(method string, id *protocols.Identity) *httptest.ResponseRecorder {
		call := newCall(t, protocols.HTTP, "/ticket")
		call.Identify(id)
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(call.In(t.Context()), method, "/ticket", nil)
		tickets.ServeHTTP(w, r)
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", method, w.Header().Get("Cache-Control"))
		}
		return w
	}
	w := post(http.MethodPost, who)
	var body struct {
		Ticket    string `json:"ticket"`
		ExpiresIn int    `json:"expires_in"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" ||
		!regexp.MustCompile(`^[\w-]{22}$`).MatchString(body.Ticket) || body.ExpiresIn != 30 {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	if err := askGuard(t, tickets, newCall(t, protocols.WebSocket, "/?ticket="+body.Ticket)); err != nil {
		t.Error(err)
	}
	if w := post(http.MethodGet, who); w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d", w.Code)
	}
	if w := post(http.MethodPost, nil); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("nobody: %d", w.Code)
	}
	for range 64 {
		w = post(http.MethodPost, who)
	}
	if w.Code != 200 {
		t.Errorf("the 64th: %d", w.Code)
	}
	if w = post(http.MethodPost, who); w.Code != 429 || w.Header().Get("Retry-After") != "30" {
		t.Errorf("too many: %d", w.Code)
	}
	broken := auth.NewTickets(auth.TicketsOptions{Store: &slowTickets{err: errors.New("secret address is down")}})
	w = httptest.NewRecorder()
	call := newCall(t, protocols.HTTP, "/ticket")
	call.Identify(who)
	broken.ServeHTTP(w, httptest.NewRequestWithContext(call.In(t.Context()), http.MethodPost, "/ticket", nil))
	if w.Code != 503 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a broken store: %d %s", w.Code, w.Body)
	}
	if _, err := tickets.Issue(t.Context(), nil); err == nil {
		t.Error("a ticket for nobody")
	}
}

// slowTickets is a store elsewhere.
type slowTickets struct {
	auth.MemoryTickets
	err error
}

func (*slowTickets) Waits() bool { return true }

func (s *slowTickets) Put(ctx context.Context, key auth.TicketKey, who *protocols.Identity, until time.Time) error {
	if s.err != nil {
		return s.err
	}
	return s.MemoryTickets.Put(ctx, key, who, until)
}

func (s *slowTickets) Take(ctx context.Context, key auth.TicketKey) (*protocols.Identity, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.MemoryTickets.Take(ctx, key)
}

func TestTicketsElsewhere(t *testing.T) {
	store := new(slowTickets)
	tickets := auth.NewTickets(auth.TicketsOptions{Store: store, TTL: time.Minute, Parameter: "pass"})
	ticket := newTicket(t, tickets, &protocols.Identity{Subject: "alice"})
	call := newCall(t, protocols.WebSocket, "/?pass="+ticket)
	if _, err := tickets.AdmitNow(t.Context(), call); !errors.Is(err, protocols.ErrMustWait) {
		t.Errorf("AdmitNow: %v", err)
	}
	if err := askGuard(t, tickets, call); err != nil {
		t.Error(err)
	}
	if _, err := tickets.AdmitNow(t.Context(), newCall(t, protocols.WebSocket, "/?x=1")); !errors.As(err, new(*protocols.Refusal)) {
		t.Errorf("without a ticket nobody needs to wait: %v", err)
	}
	store.err = errors.New("down")
	wantRefusal(t, askGuard(t, tickets, newCall(t, protocols.WebSocket, "/?pass="+ticket)), protocols.ReasonInternal)
}
