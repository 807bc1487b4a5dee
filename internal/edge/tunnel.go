package edge

import (
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router/config"
)

// relayOf is how the file wants WebSockets to be treated.
func relayOf(t *config.Tunnel) ws.Relay {
	if t.Raw {
		return ws.Relay{Mode: ws.Raw}
	}
	relay := ws.Relay{MessageBytes: t.MessageBytes, PingEvery: t.Ping, PongWait: t.Pong, Compression: t.Compression}
	if t.Ping == 0 {
		relay.PingEvery = -1
	}
	if r := t.MessageRate; r.N > 0 {
		relay.MessageRate, relay.MessageBurst = float64(r.N)/r.Per.Seconds(), r.N
	}
	if r := t.ByteRate; r.N > 0 {
		relay.ByteRate = float64(r.N) / r.Per.Seconds()
	}
	return relay
}
