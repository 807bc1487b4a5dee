package client

import (
	"strconv"
	"time"
)

// State is where a socket stands.
type State uint8

// The states. A socket begins as Disconnected, and ends as Disconnected or Failed.
//
//	Disconnected ─► Connecting ─► Connected ─► Closing ─► Disconnected, for good
//	     ▲              │             │
//	     └──────────────┴─────────────┤ what may be tried again
//	                                  └► Failed: what may not
const (
	Disconnected State = iota // there is no connection; in Run, it waits to try again
	Connecting                // it dials, or waits for the answer to its handshake
	Connected
	Closing // Close was called, or Run's context has ended: it waits for the server's close frame
	Failed  // it will not come back
)

// String is the state's name in small letters.
func (s State) String() string {
	names := [...]string{"disconnected", "connecting", "connected", "closing", "failed"}
	if int(s) < len(names) {
		return names[s]
	}
	return "state " + strconv.Itoa(int(s))
}

// Event is one change of state.
type Event struct {
	State State
	// Try counts tries to connect in a row, from 1: since Run has begun, or since the
	// last connection that lasted for Backoff.Healthy.
	Try int
	// Delay is how long a disconnected socket waits before it tries again.
	Delay time.Duration
	// Final is that no event follows.
	Final bool
	// Err is why a connection, or a try, has ended: a *CloseError, a *HandshakeError, or
	// what the network, Options.Token or SocketOptions.OnConnect say.
	Err error
}
