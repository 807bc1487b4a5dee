package limit

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/maphash"
	"net/netip"

	"github.com/oneport-edge/oneport/protocols"
)

// A caller is a 64-bit hash in memory, with a seed that nobody can know: of 100,000 callers two
// are one by chance in one process of 3,000,000,000, and none on purpose.
//
// The first byte of what is hashed says what it is, so that no identity can be an address.

// key hashes whom a call is counted for.
func (l *Limiter) key(call *protocols.Call) uint64 {
	if l.per == PerAll {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(l.seed)
	if id := l.identity(call); id != nil {
		by := id.Issuer
		if by == "" {
			by = id.By
		}
		_ = h.WriteByte('u')
		_, _ = h.WriteString(by)
		_ = h.WriteByte(0)
		_, _ = h.WriteString(id.Subject)
	} else {
		a := address(call).As16()
		_ = h.WriteByte('a')
		_, _ = h.Write(a[:])
	}
	return h.Sum64()
}

func (l *Limiter) identity(call *protocols.Call) *protocols.Identity {
	if l.per != PerIdentity {
		return nil
	}
	return call.Identity()
}

// address is a client's, as it is counted: the first 64 bits of IPv6, which is what one
// customer has (RFC 6177, and RIPE-690).
func address(call *protocols.Call) netip.Addr {
	var a netip.Addr
	if call.Conn != nil {
		a = call.Conn.Remote.Addr().Unmap()
	}
	if a.Is4() {
		return a
	}
	if !a.IsValid() {
		return netip.IPv6Unspecified()
	}
	b := a.As16()
	clear(b[8:])
	return netip.AddrFrom16(b)
}

// longestName is how long a caller's name may be in a store; longer ones are hashed.
const longestName = 128

// sharedKey names whom a call is counted for to other instances.
func (l *Limiter) sharedKey(call *protocols.Call) string {
	var who string
	switch id := l.identity(call); {
	case l.per == PerAll:
		return l.name + " all"
	case id != nil:
		who = id.Key()
	default:
		return l.name + " ip " + address(call).String()
	}
	if len(who) > longestName {
		sum := sha256.Sum256([]byte(who))
		return l.name + " id# " + hex.EncodeToString(sum[:])
	}
	return l.name + " id " + who
}
