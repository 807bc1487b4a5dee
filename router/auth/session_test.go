package auth_test

import (
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// An open call ends when its token does; HTTP requests end by themselves.
func TestSessionEndsWithItsToken(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g := jwtGuard(t, nil)
		for _, tc := range []struct {
			protocol protocols.Protocol
			exp      time.Duration
			want     time.Duration // 0: never
		}{
			{protocols.GRPC, time.Minute, time.Minute},
			{protocols.WebSocket, time.Minute, time.Minute},
			{protocols.WebSocket, 3 * time.Hour, 3 * time.Hour},        // over several looks at the clock
			{protocols.WebSocket, -10 * time.Second, 20 * time.Second}, // by leeway
			{protocols.HTTP, time.Minute, 0},
		} {
			token := jwtGood(map[string]any{"exp": time.Now().Add(tc.exp).Unix()})
			call, ctx := jwtCall(tc.protocol, "Authorization: Bearer "+token)
			var ended *protocols.Refusal
			var after time.Duration
			begin := time.Now()
			call.OnEnd(func(why *protocols.Refusal) { ended, after = why, time.Since(begin) })
			if why := jwtTry(t, g, call, ctx); why != "" {
				t.Fatalf("refused for %s", why)
			}
			time.Sleep(4 * time.Hour)
			synctest.Wait()
			if after != tc.want || tc.want != 0 && ended.Reason != protocols.ReasonExpired {
				t.Errorf("%s that has %s: ended after %s with %v", tc.protocol, tc.exp, after, ended)
			}
			call.Finish(protocols.Result{})
		}
	})
}

// A call from memory has its end too.
func TestSessionFromMemory(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g := jwtGuard(t, nil)
		token := jwtGood(map[string]any{"exp": time.Now().Add(time.Minute).Unix()})
		var ended atomic.Int64
		for range 3 {
			call, ctx := jwtCall(protocols.WebSocket, "Authorization: Bearer "+token)
			call.OnEnd(func(*protocols.Refusal) { ended.Add(1) })
			if why := jwtTry(t, g, call, ctx); why != "" {
				t.Fatalf("refused for %s", why)
			}
		}
		if n := g.Stats().Remembered; n != 2 {
			t.Errorf("%d remembered, want 2", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := ended.Load(); n != 3 {
			t.Errorf("%d of 3 calls ended", n)
		}
	})
}

// A call that is over leaves no timer behind.
func TestSessionStops(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g := jwtGuard(t, nil)
		call, ctx := jwtCall(protocols.GRPC, "Authorization: Bearer "+jwtGood(nil))
		if why := jwtTry(t, g, call, ctx); why != "" {
			t.Fatalf("refused for %s", why)
		}
		call.Finish(protocols.Result{})
		call.OnEnd(func(*protocols.Refusal) { t.Error("ended after its end") })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
	})
}

// Calls of one token are ended together, but for those that are over, and but for those that leeway
// has let in later.
func TestSessionsOfOneToken(t *testing.T) {
	jwtMade()
	synctest.Test(t, func(t *testing.T) {
		g := jwtGuard(t, nil)
		token := jwtGood(map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
		begin := time.Now()
		var mu sync.Mutex
		ended := map[int]time.Duration{}
		open := func(i int) *protocols.Call {
			call, ctx := jwtCall(protocols.WebSocket, "Authorization: Bearer "+token)
			call.OnEnd(func(*protocols.Refusal) {
				mu.Lock()
				ended[i] = time.Since(begin)
				mu.Unlock()
				call.Finish(protocols.Result{}) // whoever serves it does, perhaps at once
			})
			if why := jwtTry(t, g, call, ctx); why != "" {
				t.Fatalf("refused for %s", why)
			}
			return call
		}
		var calls []*protocols.Call
		for i := range 5 {
			calls = append(calls, open(i))
		}
		for _, i := range []int{4, 2, 0} { // the first, one in between, the last
			calls[i].Finish(protocols.Result{})
		}
		time.Sleep(time.Hour + 10*time.Second)
		open(5) // by leeway
		open(6).Finish(protocols.Result{})
		time.Sleep(time.Hour)
		synctest.Wait()
		want := map[int]time.Duration{1: time.Hour, 3: time.Hour, 5: time.Hour + 30*time.Second}
		mu.Lock()
		defer mu.Unlock()
		if !maps.Equal(ended, want) {
			t.Errorf("ended %v, want %v", ended, want)
		}
	})
}
