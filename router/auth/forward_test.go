package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

func newForward(t testing.TB, opts auth.ForwardOptions) *auth.Forward {
	t.Helper()
	f, err := auth.NewForward(opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// authorityFunc is an authority in memory.
type authorityFunc func(ctx context.Context, q auth.Question) (auth.Verdict, error)

func (s authorityFunc) Ask(ctx context.Context, q auth.Question) (auth.Verdict, error) {
	return s(ctx, q)
}

func TestForwardTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		hang := true
		f := newForward(t, auth.ForwardOptions{Log: slog.New(slog.NewTextHandler(&log, nil)), Authority: authorityFunc(func(ctx context.Context, _ auth.Question) (auth.Verdict, error) {
			if hang {
				<-ctx.Done()
				return auth.Verdict{}, ctx.Err()
			}
			return auth.Verdict{Status: 200}, nil
		})})
		begun := time.Now()
		wantRefusal(t, askGuard(t, f, newCall(t, protocols.HTTP, "/")), protocols.ReasonOverloaded)
		if d := time.Since(begun); d != time.Second {
			t.Errorf("waited %v", d)
		}
		// A call that ends meanwhile is nobody's failure.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := f.Admit(ctx, newCall(t, protocols.HTTP, "/")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call that has ended: %v", err)
		}
		hang = false
		if err := askGuard(t, f, newCall(t, protocols.HTTP, "/")); err != nil {
			t.Error(err)
		}
		if c := f.Counts(); c != (auth.ForwardCounts{Admitted: 1, Failed: 1}) {
			t.Errorf("counts %+v", c)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "answers again") {
			t.Errorf("log:\n%s", &log)
		}
	})
}

// What is logged of failures is bounded, however often strangers bring them about.
func TestForwardLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		status := 0
		f := newForward(t, auth.ForwardOptions{Log: slog.New(slog.NewTextHandler(&log, nil)), Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) {
			return auth.Verdict{Status: status}, nil
		})})
		for range 100 {
			for _, status = range []int{404, 200} {
				_ = askGuard(t, f, newCall(t, protocols.HTTP, "/"))
			}
			time.Sleep(200 * time.Millisecond)
		}
		if n := strings.Count(log.String(), "\n"); n != 4 {
			t.Errorf("%d lines in 20 s:\n%s", n, &log)
		}
	})
}

func TestForwardIdentity(t *testing.T) {
	for name, tc := range map[string]struct {
		fields  []protocols.Field
		who     string
		expires time.Duration
		fails   bool
	}{
		"nobody":            {nil, "", 0, false},
		"somebody":          {[]protocols.Field{{Name: "x-who", Value: "alice"}, {Name: "x-left", Value: ""}}, "alice", 0, false},
		"for a minute":      {[]protocols.Field{{Name: "X-Who", Value: "alice"}, {Name: "x-left", Value: "60"}}, "alice", time.Minute, false},
		"anybody, a minute": {[]protocols.Field{{Name: "X-Left", Value: "60"}}, "", time.Minute, false},
		"two":               {[]protocols.Field{{Name: "X-Who", Value: "alice"}, {Name: "X-Who", Value: "bob"}}, "", 0, true},
		"two times":         {[]protocols.Field{{Name: "X-Left", Value: "60"}, {Name: "X-Left", Value: "61"}}, "", 0, true},
		"no number":         {[]protocols.Field{{Name: "X-Left", Value: "1m"}}, "", 0, true},
		"negative":          {[]protocols.Field{{Name: "X-Left", Value: "-1"}}, "", 0, true},
		"too large":         {[]protocols.Field{{Name: "X-Left", Value: "9223372036854775807"}}, "", 0, true},
		"not UTF-8":         {[]protocols.Field{{Name: "X-Who", Value: "al\xffice"}}, "", 0, true},
		"another's field":   {[]protocols.Field{{Name: "X-User-Id", Value: "alice"}}, "", 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newForward(t, auth.ForwardOptions{Identity: "X-Who", Expires: "X-Left", By: "sso", Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) {
				return auth.Verdict{Status: 200, Fields: tc.fields}, nil
			})})
			call := newCall(t, protocols.WebSocket, "/")
			err := askGuard(t, f, call)
			if tc.fails {
				wantRefusal(t, err, protocols.ReasonOverloaded)
				if call.Identity() != nil {
					t.Errorf("%s: identity %v", name, call.Identity())
				}
				return
			}
			id := call.Identity()
			if err != nil || (id != nil) != (tc.who != "") || id != nil && (id.Subject != tc.who || id.By != "sso" || id.Expires.IsZero() != (tc.expires == 0)) {
				t.Fatalf("%s: %v, %+v", name, err, id)
			}
			var ended atomic.Int64
			begun := time.Now()
			call.OnEnd(func(*protocols.Refusal) { ended.Store(int64(time.Since(begun))) })
			time.Sleep(time.Hour)
			if got := time.Duration(ended.Load()); got != tc.expires {
				t.Errorf("%s: ended after %v, want %v", name, got, tc.expires)
			}
		})
	}
}

func TestForwardIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		f := newForward(t, auth.ForwardOptions{Concurrency: 3, Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(400 * time.Millisecond)
			return auth.Verdict{Status: 200}, nil
		})})
		var all sync.WaitGroup
		var admitted atomic.Int64
		for range 20 {
			call := newCall(t, protocols.GRPC, "/")
			all.Go(func() {
				if _, err := f.Admit(t.Context(), call); err == nil {
					admitted.Add(1)
				}
			})
		}
		all.Wait()
		// Three rounds begin within the second that a call waits for its turn and its answer.
		if most.Load() != 3 || admitted.Load() < 6 || admitted.Load() > 9 {
			t.Errorf("%d at once, %d admitted", most.Load(), admitted.Load())
		}
	})
}

func TestForwardVerdicts(t *testing.T) {
	for name, tc := range map[string]struct {
		v    auth.Verdict
		want string // how Authorization, X-A and X-User-Id reach a server; "" if refused
	}{
		"nothing said":          {auth.Verdict{}, ""},
		"removed":               {auth.Verdict{Status: 200, Remove: []string{"x-a", "Host", ":path", "x y"}}, "|||"},
		"set":                   {auth.Verdict{Status: 200, Fields: []protocols.Field{{Name: "x-user-id", Value: "alice"}}}, "|a|alice|alice"},
		"set in another's name": {auth.Verdict{Status: 200, Fields: []protocols.Field{{Name: "X-A", Value: "forged"}}}, "|a||"},
		"a new line":            {auth.Verdict{Status: 200, Fields: []protocols.Field{{Name: "X-User-Id", Value: "a\r\nX-Admin: 1"}}}, ""},
		"a new line, refused":   {auth.Verdict{Status: 401, Fields: []protocols.Field{{Name: "WWW-Authenticate", Value: "a\nX-Admin: 1"}}}, ""},
		"exchanged":             {auth.Verdict{Status: 200, Fields: []protocols.Field{{Name: "Authorization", Value: "Bearer other"}}}, "Bearer other|a||"},
	} {
		f := newForward(t, auth.ForwardOptions{
			Upstream:  []string{"X-User-Id", "Authorization"},
			Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) { return tc.v, nil }),
		})
		call := newCall(t, protocols.HTTP, "/", "Authorization", "Bearer t", "X-A", "a", "X-User-Id", "mallory", "Host", "h")
		err := askGuard(t, f, call)
		if (err == nil) != (tc.want != "") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		who := ""
		if id := call.Identity(); id != nil {
			who = id.Subject
		}
		if got := fmt.Sprintf("%s|%s|%s|%s", serverGets(call, "Authorization"), serverGets(call, "X-A"), serverGets(call, "X-User-Id"), who); err == nil && got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if serverGets(call, "Host") != "h" {
			t.Errorf("%s: Host was changed", name)
		}
		if err != nil && strings.Contains(protocols.RefusalOf(err).Challenge, "\n") {
			t.Errorf("%s: a field with a line feed", name)
		}
	}
}

// Two Authorization fields: the authority is not asked, for a server might look at the other.
func TestForwardDuplicateAuthorization(t *testing.T) {
	f := newForward(t, auth.ForwardOptions{Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) {
		t.Error("asked")
		return auth.Verdict{Status: 200}, nil
	})})
	wantRefusal(t, askGuard(t, f, newCall(t, protocols.HTTP, "/", "Authorization", "a", "authorization", "b")), protocols.ReasonUnauthenticated)
}

// Keys let in; what the authority that was not asked would have set, a client cannot.
func TestForwardNotAsked(t *testing.T) {
	key, line := newAPIKey(t, "ci")
	f := newForward(t, auth.ForwardOptions{Upstream: []string{"X-User-Id"}, Authority: authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) {
		return auth.Verdict{}, errors.New("asked")
	})})
	call := newCall(t, protocols.HTTP, "/", "X-API-Key", key, "X-User-Id", "mallory", "Authorization", "Bearer t")
	if err := askGuard(t, auth.Any(apiKeysOf(t, auth.APIKeysOptions{}, line), f), call); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-User-Id", "Authorization", "X-API-Key"} {
		if v := serverGets(call, name); v != "" {
			t.Errorf("a server gets %s %q", name, v)
		}
	}
}

func TestForwardOptions(t *testing.T) {
	nobody := authorityFunc(func(context.Context, auth.Question) (auth.Verdict, error) { return auth.Verdict{}, nil })
	for _, opts := range []auth.ForwardOptions{
		{},
		{Authority: nobody, Upstream: []string{"Host"}},
		{Authority: nobody, Upstream: []string{"content-length"}},
		{Authority: nobody, Upstream: []string{"a b"}},
		{Authority: nobody, Upstream: []string{""}},
		{Authority: nobody, Fields: []string{"X-Forwarded-Uri"}},
		{Authority: nobody, Remove: []string{"Transfer-Encoding"}},
		{Authority: nobody, Identity: "a:b"},
		{Authority: nobody, Expires: "a b"},
	} {
		if _, err := auth.NewForward(opts); err == nil {
			t.Errorf("%+v is taken", opts)
		}
	}
	names := []string{"X-User-Id"}
	f := newForward(t, auth.ForwardOptions{Authority: nobody, Upstream: names, Remove: []string{}})
	names[0] = "X-Changed"
	call := newCall(t, protocols.HTTP, "/", "Authorization", "Bearer t", "X-User-Id", "mallory")
	f.Clean(call)
	if serverGets(call, "Authorization") != "Bearer t" || serverGets(call, "X-User-Id") != "" || slices.ContainsFunc(call.Handed(), func(f protocols.Field) bool { return f.Is("X-Changed") }) {
		t.Errorf("handed %v", call.Handed())
	}
}
