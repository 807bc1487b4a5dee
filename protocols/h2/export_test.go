package h2

import "net"

// Kept makes the writes of a switch not wait, on every other connection.
func Kept(nc net.Conn, n int) net.Conn { return kept(nc, n) }

// Account is what the books say of a connection, to a client or upstream.
type Account struct {
	Credit int64 // the peer's, for the connection
	Due    int64 // bytes of the peer that wait, and whose credit it gets back
	Lost   int64 // bytes that do not wait, and whose credit it did not get back
	Held   int64 // bytes that wait, for either side
	Lent   int64 // and what upstreams may make of that
}

// Accounts returns those of a switch's clients, by the clients' addresses, and
// what all of them hold. Nothing may move.
func (sw *Switch) Accounts() (accounts map[string]Account, held int64) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	accounts = make(map[string]Account)
	for c := range sw.clients {
		c.mu.Lock()
		a := Account{Credit: c.recv.Credit(), Held: int64(c.held), Lent: c.lent}
		for _, s := range c.streams {
			a.Due += int64(len(s.up.queue))
		}
		a.Lost = c.recv.Queued() - a.Due
		c.mu.Unlock()
		accounts[c.nc.RemoteAddr().String()] = a
	}
	return accounts, sw.held.Load()
}

// Accounts returns those of an upstream's connections, by their own addresses.
// Nothing may move.
func (u *Upstream) Accounts() map[string]Account {
	u.mu.Lock()
	defer u.mu.Unlock()
	accounts := make(map[string]Account)
	for _, t := range u.all {
		accounts[t.nc.LocalAddr().String()] = Account{Credit: t.recv.Credit(), Lost: t.recv.Queued()}
	}
	return accounts
}
