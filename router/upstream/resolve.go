package upstream

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// lookup finds the addresses of a name.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// mostAddresses bounds the servers that a name may lead to.
const mostAddresses = 256

// resolve looks names up, again and again until ctx ends: each address is a
// server of its own. Until a name has been found once, it is dialed as it is.
func (u *Upstream) resolve(ctx context.Context, look lookup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for i := range u.targets {
			if u.targets[i].isName() {
				u.lookUp(ctx, look, &u.targets[i])
			}
		}
		u.closeRemoved()
		timer.Reset(u.opts.Resolve)
	}
}

// lookUp makes the servers of one name those of the addresses it has now. What
// cannot be looked up stays as it is.
func (u *Upstream) lookUp(ctx context.Context, look lookup, t *target) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := look(ctx, "ip", t.host)
	if ctx.Err() == nil && (err != nil || len(addrs) == 0) {
		u.opts.Log.Warn("name not found, the old addresses stay", "upstream", u.name, "name", t.host, "err", err)
	}
	if err != nil || len(addrs) == 0 {
		return
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	addrs = addrs[:min(len(addrs), mostAddresses)]

	_, port, _ := net.SplitHostPort(t.addr)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	var there []string
	u.servers = slices.DeleteFunc(u.servers, func(s *server) bool {
		if s.target.url != t.url {
			return false
		}
		addr, err := netip.ParseAddrPort(s.target.addr)
		if err == nil && slices.Contains(addrs, addr.Addr()) {
			there = append(there, s.target.addr)
			return false
		}
		u.removeLocked(s)
		return true
	})
	for _, a := range addrs {
		at := *t
		at.addr = net.JoinHostPort(a.String(), port)
		if slices.Contains(there, at.addr) {
			continue
		}
		s := u.newServer(at, t.url+" ("+a.String()+")")
		if len(there) > 0 {
			s.since.Store(time.Now().UnixNano())
		}
		u.addLocked(s)
	}
	u.renewLocked(time.Now())
}

// addLocked takes a server in.
func (u *Upstream) addLocked(s *server) {
	u.servers = append(u.servers, s)
	if u.opts.Health.wanted() {
		ctx, cancel := context.WithCancel(u.ctx)
		s.unwatch = cancel
		u.work.Go(func() {
			defer cancel()
			u.watch(ctx, s)
		})
	}
}

// removeLocked takes a server out: it gets no more calls, and is closed when it
// has none.
func (u *Upstream) removeLocked(s *server) {
	if s.unwatch != nil {
		s.unwatch()
	}
	s.removed = time.Now()
	u.removed = append(u.removed, s)
}

// linger is how long a server that was taken out stays open at least: somebody
// may have chosen it, and not begun yet.
const linger = 10 * time.Second

// closeRemoved closes servers that were taken out and have nothing in flight.
func (u *Upstream) closeRemoved() {
	u.mu.Lock()
	var idle []*server
	u.removed = slices.DeleteFunc(u.removed, func(s *server) bool {
		if s.active.Load() > 0 || time.Since(s.removed) < linger {
			return false
		}
		idle = append(idle, s)
		return true
	})
	u.mu.Unlock()
	for _, s := range idle {
		s.close()
	}
}
