package conn

import (
	"cmp"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Bounds limits how many connections may be open. A connection over a bound is
// closed at once and counted.
type Bounds struct {
	// Total bounds all connections. Zero means 10,000; negative means none.
	Total int
	// PerIP bounds the connections of one client address, an IPv6 client
	// being its /64. Zero means 256; negative means none.
	PerIP int
	// PreRoute bounds the connections that are not routed yet, so that silent
	// ones cannot take every place. Zero means half of Total, and never less
	// than 64; negative means none.
	PreRoute int
	// Exempt lists who PerIP does not apply to. Nil means loopback, private
	// and link-local addresses; an empty list means nobody is exempt.
	Exempt []netip.Prefix
}

const (
	defaultTotal = 10_000
	defaultPerIP = 256

	leastPreRoute = 64
)

// withDefaults resolves the zero values.
func (b Bounds) withDefaults() Bounds {
	b.Total = cmp.Or(b.Total, defaultTotal)
	b.PerIP = cmp.Or(b.PerIP, defaultPerIP)
	if b.PreRoute == 0 {
		b.PreRoute = -1
		if b.Total > 0 {
			b.PreRoute = max(b.Total/2, leastPreRoute)
		}
	}
	return b
}

func (b Bounds) exempt(ip netip.Addr) bool {
	if b.Exempt == nil {
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
	}
	return slices.ContainsFunc(b.Exempt, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// DefaultDeadline is that of Options.Deadline.
const DefaultDeadline = 10 * time.Second

// Options configures a Registry. The zero value is ready to use.
type Options struct {
	Bounds Bounds
	// Deadline is how long a connection may take until it is routed. Zero
	// means 10 s.
	Deadline time.Duration
	// OnStep observes every step of every connection. It runs on the
	// connection's own goroutine, must be quick, and must not call back.
	OnStep func(c *protocols.Conn, from, to protocols.State)
	// Calls are those that are open on all connections. It may be nil.
	Calls *protocols.Calls
	// IDPrefix starts every connection's ID, so that those of several
	// instances differ.
	IDPrefix string
}

// Registry holds every open connection. Its methods may be called concurrently.
type Registry struct {
	opts  Options
	epoch time.Time // what times are counted from: cheaper to take than the time of day
	seq   atomic.Uint64

	mu       sync.Mutex // guards the fields below
	open     map[string]*Conn
	perIP    map[netip.Addr]int
	accepted map[string]int64 // by listener
	preRoute int
	idle     chan struct{} // closed when open is empty; nil unless awaited

	reasons [numReasons]atomic.Int64

	handshakes handshakes

	goneIn, goneOut int64 // bytes of connections that are no longer open; guarded by mu
}

// NewRegistry returns an empty registry.
func NewRegistry(opts Options) *Registry {
	opts.Bounds = opts.Bounds.withDefaults()
	opts.Deadline = cmp.Or(opts.Deadline, DefaultDeadline)
	return &Registry{
		opts:  opts,
		epoch: time.Now(),
		open:  make(map[string]*Conn),
		perIP: make(map[netip.Addr]int),

		accepted: make(map[string]int64),
	}
}

// Listens has a listener among the Stats before it has accepted anything. listener is as in [Origin].
func (r *Registry) Listens(listener string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted[listener] += 0
}

// Bounds gives the bounds in effect.
func (r *Registry) Bounds() Bounds { return r.opts.Bounds }

// Origin is where a connection came from.
type Origin struct {
	Listener string
	// Relayed says that a PROXY header will name the client, so that the
	// peer's address counts for nothing in PerIP. See [Registry.Relay].
	Relayed bool
}

// Add takes raw under account and starts its deadline. Over a bound it returns
// nil and the reason, has counted it, and leaves raw to be closed by the caller.
func (r *Registry) Add(raw net.Conn, from Origin) (*Conn, Reason) {
	now := time.Now()
	c := &Conn{raw: raw, reg: r, deadline: now.Add(r.opts.Deadline), budget: math.MaxInt}
	c.sock.Init(raw)
	facts := protocols.Conn{
		ID:       r.opts.IDPrefix + strconv.FormatUint(r.seq.Add(1), 36),
		Listener: from.Listener,
		Peer:     AddrPort(raw.RemoteAddr()),
		Local:    AddrPort(raw.LocalAddr()),
		Accepted: now,
	}
	facts.Remote = facts.Peer
	c.since.Store(int64(now.Sub(r.epoch)))
	c.facts.Store(facts.WithLive(c, r.opts.Calls))
	if !from.Relayed {
		c.ip = r.countedAs(facts.Remote.Addr())
	}

	if why := r.admit(c, &facts); why != ReasonDone {
		r.reasons[why].Add(1)
		return nil, why
	}
	// A socket that cannot take a deadline is dead: the first read says so.
	_ = raw.SetDeadline(c.deadline)
	c.reading.want = int64(c.deadline.Sub(r.epoch))
	c.reading.armed = c.reading.want
	c.writing.want, c.writing.armed = c.reading.want, c.reading.want
	return c, ReasonDone
}

func (r *Registry) admit(c *Conn, facts *protocols.Conn) Reason {
	b := r.opts.Bounds
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case b.Total >= 0 && len(r.open) >= b.Total:
		return ReasonOverTotal
	case b.PreRoute >= 0 && r.preRoute >= b.PreRoute:
		return ReasonOverPreRoute
	case !r.admitIPLocked(c.ip):
		return ReasonOverPerIP
	}
	r.open[facts.ID] = c
	r.accepted[facts.Listener]++
	r.preRoute++
	return ReasonDone
}

// admitIPLocked counts one more connection of ip, if it may have one.
func (r *Registry) admitIPLocked(ip netip.Addr) bool {
	if !ip.IsValid() {
		return true
	}
	if r.perIP[ip] >= r.opts.Bounds.PerIP {
		return false
	}
	r.perIP[ip]++
	return true
}

// Relay applies the per-IP bound to a connection whose client a PROXY header
// has named, and records it. It reports whether the client may have one more.
func (r *Registry) Relay(c *Conn, remote, local netip.AddrPort) bool {
	ip := r.countedAs(remote.Addr())
	r.mu.Lock()
	ok := r.admitIPLocked(ip)
	if ok {
		c.ip = ip
	}
	r.mu.Unlock()
	c.Learn(func(f *protocols.Conn) { f.Remote, f.Local = remote, local })
	return ok
}

// countedAs is the key an address has in the per-IP bound.
func (r *Registry) countedAs(ip netip.Addr) netip.Addr {
	if r.opts.Bounds.PerIP < 0 || !ip.IsValid() || r.opts.Bounds.exempt(ip) {
		return netip.Addr{}
	}
	if ip.Is6() {
		p, _ := ip.WithZone("").Prefix(64)
		return p.Addr()
	}
	return ip
}

func (r *Registry) stepped(c *Conn, from, to protocols.State) {
	if from.PreRoute() && !to.PreRoute() {
		r.mu.Lock()
		r.preRoute--
		r.mu.Unlock()
	}
	if r.opts.OnStep != nil {
		r.opts.OnStep(c.Facts(), from, to)
	}
}

func (r *Registry) remove(c *Conn, why Reason) {
	r.reasons[why].Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c.Facts().ID)
	in, out := c.Bytes()
	r.goneIn += in
	r.goneOut += out
	if c.ip.IsValid() {
		if r.perIP[c.ip]--; r.perIP[c.ip] <= 0 {
			delete(r.perIP, c.ip)
		}
	}
	if len(r.open) == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// Get returns the open connection of that ID, or nil.
func (r *Registry) Get(id string) *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[id]
}

// List returns the open connections, the oldest first.
func (r *Registry) List() []*Conn {
	list := r.snapshot()
	slices.SortFunc(list, func(a, b *Conn) int { return a.Facts().Accepted.Compare(b.Facts().Accepted) })
	return list
}

// snapshot returns the open connections in no order.
func (r *Registry) snapshot() []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Conn, 0, len(r.open))
	for _, c := range r.open {
		list = append(list, c)
	}
	return list
}

// Len is how many connections are open.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// Any reports whether match accepts an open connection.
func (r *Registry) Any(match func(*Conn) bool) bool {
	return slices.ContainsFunc(r.snapshot(), match)
}

// CloseAll closes every connection that match accepts, or all if it is nil, for
// that reason, and returns how many.
func (r *Registry) CloseAll(why Reason, match func(*Conn) bool) (n int) {
	for _, c := range r.snapshot() {
		if match == nil || match(c) {
			_ = c.CloseFor(why) // a socket that fails to close is gone as well
			n++
		}
	}
	return n
}

// Empty returns a channel that is closed once no connection is open.
func (r *Registry) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.open) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	return r.idle
}

// Stats are counts at one moment.
type Stats struct {
	Accepted int64                     // connections admitted so far
	Open     map[protocols.State]int64 // open connections by state
	Ended    map[Reason]int64          // refused and closed connections so far, by reason
	// BytesIn and BytesOut were read from and written to clients so far, TLS records included.
	BytesIn, BytesOut int64
	// Handshakes are those of TLS that have succeeded; the others are in Ended.
	Handshakes Handshakes
	// Listeners are the parts of Accepted and Open by [Origin.Listener].
	Listeners map[string]ListenerStats
}

// ListenerStats are counts of the connections that one listener has accepted.
type ListenerStats struct {
	Accepted int64
	Open     map[protocols.State]int64
}

// Stats returns the counts. States and reasons that never occurred are left out.
func (r *Registry) Stats() Stats {
	s := Stats{
		Open: make(map[protocols.State]int64), Ended: make(map[Reason]int64), Handshakes: r.handshakes.stats(),
		Listeners: make(map[string]ListenerStats),
	}
	r.mu.Lock()
	s.BytesIn, s.BytesOut = r.goneIn, r.goneOut
	for listener, n := range r.accepted {
		s.Accepted += n
		s.Listeners[listener] = ListenerStats{Accepted: n, Open: make(map[protocols.State]int64)}
	}
	for _, c := range r.open {
		in, out := c.Bytes()
		s.BytesIn += in
		s.BytesOut += out
		if st := c.State(); st != protocols.StateClosed { // about to be removed
			s.Open[st]++
			s.Listeners[c.Facts().Listener].Open[st]++
		}
	}
	r.mu.Unlock()
	for _, why := range Reasons() {
		if n := r.reasons[why].Load(); n != 0 {
			s.Ended[why] = n
		}
	}
	return s
}
