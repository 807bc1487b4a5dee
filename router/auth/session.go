package auth

import (
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// endAtExpiry ends a gRPC call or a WebSocket when what has opened it expires. An ordinary
// request is let finish. A call let in by leeway has it until the end.
func endAtExpiry(call *protocols.Call, id *protocols.Identity, now time.Time, leeway time.Duration) {
	expires := id.Expires
	if call.Protocol == protocols.HTTP || expires.IsZero() {
		return
	}
	if !now.Before(expires) {
		expires = expires.Add(leeway)
	}
	call.EndAt(id, expires)
}
