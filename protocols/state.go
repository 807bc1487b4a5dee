package protocols

// State is where a connection stands in its life. The machine is explicit:
// [State.To] says which steps are legal, and the registry in protocols/conn
// refuses every other one.
//
//	opening ─┬─► handshake ─┬─► idle ◄──► active ─┬─► upgraded
//	         │              │     │         │     │       │
//	         ├──────────────┼─────┴─────────┴─────┤       │
//	         └► tunnel ◄────┘                     ▼       ▼
//	              └───────────────────────────► closed (from every state)
type State uint8

// The states of a connection.
const (
	StateOpening   State = iota // accepted; PROXY header and first bytes are awaited
	StateHandshake              // TLS: hello and handshake
	StateIdle                   // routed, no call in flight
	StateActive                 // routed, at least one call in flight
	StateUpgraded               // hijacked from HTTP/1.1: a WebSocket, as a rule
	StateTunnel                 // passed through, byte for byte, to an upstream
	StateClosed                 // gone; final
	NumStates                   // how many there are
)

// States lists all states in order, for tables and metrics.
func States() []State {
	all := make([]State, NumStates)
	for i := range all {
		all[i] = State(i)
	}
	return all
}

var stateNames = [NumStates]string{"opening", "handshake", "idle", "active", "upgraded", "tunnel", "closed"}

// String gives the state's name: a bounded set, fit for a label.
func (s State) String() string {
	if s >= NumStates {
		return "invalid"
	}
	return stateNames[s]
}

// PreRoute reports whether the connection has not been handed to a protocol
// yet: the phase that one absolute deadline and a bound of its own cover.
func (s State) PreRoute() bool { return s == StateOpening || s == StateHandshake }

// legal[from] has a bit for each state that may follow.
var legal = [NumStates]uint16{
	StateOpening:   bits(StateHandshake, StateIdle, StateTunnel, StateClosed),
	StateHandshake: bits(StateIdle, StateTunnel, StateClosed),
	StateIdle:      bits(StateActive, StateUpgraded, StateClosed),
	StateActive:    bits(StateIdle, StateUpgraded, StateClosed),
	StateUpgraded:  bits(StateClosed),
	StateTunnel:    bits(StateClosed),
	StateClosed:    0,
}

func bits(states ...State) (set uint16) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// To reports whether a connection in state s may step to next.
func (s State) To(next State) bool {
	return s < NumStates && next < NumStates && legal[s]&(1<<next) != 0
}
