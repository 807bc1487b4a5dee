package auth

import (
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// sessionLook is how long a session goes without a look at the clock: timers do not
// notice that a clock is set, or that the machine has slept.
const sessionLook = 10 * time.Minute

// session ends a call when its credential does.
type session struct {
	call *protocols.Call
	at   time.Time

	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	done  bool
}

// sessionEnds has a call ended when its credential is: a gRPC call and a WebSocket, for
// which that may come late. A call let in by leeway has it until the end.
func sessionEnds(call *protocols.Call, expires time.Time, leeway time.Duration) {
	if call.Protocol == protocols.HTTP || expires.IsZero() {
		return
	}
	left := time.Until(expires)
	if left <= 0 {
		expires, left = expires.Add(leeway), left+leeway
	}
	s := &session{call: call, at: expires}
	s.mu.Lock()
	s.timer = time.AfterFunc(min(left, sessionLook), s.look)
	s.mu.Unlock()
	call.OnDone(s.stop)
}

// look ends the call if it is time.
func (s *session) look() {
	left := time.Until(s.at)
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		return
	}
	if left > 0 {
		s.timer.Reset(min(left, sessionLook))
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.call.End(&protocols.Refusal{Reason: protocols.ReasonExpired})
}

func (s *session) stop(protocols.Result) {
	s.mu.Lock()
	s.done = true
	s.timer.Stop()
	s.mu.Unlock()
}
