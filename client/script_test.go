package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/oneport-edge/oneport/oneporttest"
)

// step is what a scripted server does with one try.
type step func(s *script, w http.ResponseWriter, r *http.Request)

// refused is a step without a server.
var refused step = func(*script, http.ResponseWriter, *http.Request) { panic("dialed") }

// script is a server in memory that does one step for each connection, and the
// last one for all further ones.
type script struct {
	t     *testing.T
	ln    *oneporttest.Listener
	over  chan struct{} // closed at the end of the test
	steps []step
	begun time.Time
	work  sync.WaitGroup // steps

	mu    sync.Mutex // guards the fields below
	tries []time.Duration
	heads []http.Header
	urls  []string
	notes []string
}

func newScript(t *testing.T, steps ...step) *script {
	t.Helper()
	s := &script{t: t, ln: oneporttest.NewListener(), over: make(chan struct{}), steps: steps, begun: time.Now()}
	srv := &http.Server{Handler: s}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(s.ln) }()
	t.Cleanup(func() {
		close(s.over)
		srv.Close()
		<-done
		synctest.Wait() // all that will begin has begun
		s.work.Wait()
	})
	return s
}

func (s *script) step() step { return s.steps[min(len(s.tries), len(s.steps))-1] }

func (s *script) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	s.tries = append(s.tries, time.Since(s.begun))
	next := s.step()
	s.mu.Unlock()
	if fmt.Sprintf("%p", next) == fmt.Sprintf("%p", refused) {
		return nil, syscall.ECONNREFUSED
	}
	return s.ln.Dial(ctx)
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.work.Add(1)
	defer s.work.Done()
	s.mu.Lock()
	s.heads, s.urls = append(s.heads, r.Header), append(s.urls, r.URL.String())
	next := s.step()
	s.mu.Unlock()
	next(s, w, r)
}

// notef keeps a word for the end of a test.
func (s *script) notef(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// heard is what was noted, once all steps have come as far as they do.
func (s *script) heard() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.notes, ",")
}

// answers is a step with a status, and fields as "Name: value".
func answers(code int, fields ...string) step {
	return func(_ *script, w http.ResponseWriter, _ *http.Request) {
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
	}
}

// hangs does not answer.
func hangs(s *script, _ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.over:
	}
}

// upgraded hands a WebSocket to f, and closes it behind.
func upgraded(f func(s *script, c *websocket.Conn)) step {
	return func(s *script, w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{Subprotocols: []string{"chat", inBandName}}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			s.t.Error(err)
			return
		}
		defer c.Close()
		f(s, c)
	}
}

// stays reads until the client closes.
func stays(s *script, c *websocket.Conn) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-s.over:
			c.Close()
		case <-stop:
		}
	}()
	for {
		_, p, err := c.ReadMessage()
		if err != nil {
			if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
				s.notef("close %d", ce.Code)
			}
			return
		}
		s.notef("%s", p)
	}
}

// closes ends a WebSocket with a code after d.
func closes(code int, reason string, after time.Duration) step {
	return upgraded(func(_ *script, c *websocket.Conn) {
		read := make(chan struct{})
		go func() {
			defer close(read)
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					return
				}
			}
		}()
		time.Sleep(after)
		msg := websocket.FormatCloseMessage(code, reason)
		if code == closeNoStatus {
			msg = nil
		}
		_ = c.WriteControl(websocket.CloseMessage, msg, time.Now().Add(time.Second))
		<-read
	})
}

// whole is the jitter of tests that want to know what a delay is at most.
func whole(d time.Duration) time.Duration { return d }

// client is one of the script's.
func (s *script) client(o Options) *Client {
	s.t.Helper()
	o.Addr, o.Plaintext = "script.test", true
	if o.Dial == nil {
		o.Dial = s.dial
	}
	c, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			s.t.Error(err)
		}
	})
	c.jitter = whole
	return c
}

// story writes down what a socket says of itself.
type story struct {
	mu     sync.Mutex // guards the field below
	events []Event
}

func (st *story) hear(e Event) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.events = append(st.events, e)
}

func (st *story) String() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	var words []string
	for _, e := range st.events {
		w := e.State.String()
		if e.State == Disconnected && !e.Final {
			w = e.Delay.String()
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// running is a socket in Run, which is closed at the end of the test.
func running(t *testing.T, s *Socket) (st *story, ended chan error) {
	t.Helper()
	t.Cleanup(func() { s.Close() })
	st, ended = new(story), make(chan error, 1)
	s.OnState(st.hear)
	go func() { ended <- s.Run(context.Background()) }()
	return st, ended
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// queries is what try i asked for.
func (s *script) queries(t *testing.T, i int) url.Values {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= len(s.urls) {
		t.Fatalf("there was no try %d", i)
	}
	u, err := url.Parse(s.urls[i])
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}
