package config

import "time"

// Tunnel is how what goes through a WebSocket is treated.
type Tunnel struct {
	Raw          bool          // bytes are moved and not looked at: the rest is zero
	MessageBytes int64         // 64 KiB by default
	MessageRate  Rate          // zero for no bound
	ByteRate     Rate          // of bytes; zero for no bound
	Ping, Pong   time.Duration // 25 s and 10 s by default; Ping is 0 for never
	Compression  bool          // permessage-deflate may be negotiated
}

// Keys of routes of WebSockets.
const (
	keyMode        = "mode"
	keyMessageSize = "message_size"
	keyMessageRate = "message_rate"
	keyByteRate    = "byte_rate"
	keyPing        = "ping"
	keyPong        = "pong"
	keyCompression = "compression"
)

const (
	modeRaw     = "raw"
	defaultPong = "10s"
)

// awareKeys are those that a raw tunnel has no use for.
var awareKeys = []string{keyMessageSize, keyMessageRate, keyByteRate, keyPing, keyPong, keyCompression}

// socketKeys are those of routes of WebSockets.
var socketKeys = []key{
	{
		name: keyMode, is: enum("aware", modeRaw), otherwise: "aware", with: []string{keyWebSocket},
		about: "For `websocket`: `aware` sees frames, holds the bounds below, and finds peers that are gone; what it lets pass, it passes unchanged. " +
			"`raw` moves bytes and leaves all else to client and server, compression and other extensions among it. Both close with 1001 when the port drains.",
	},
	{
		name: keyMessageSize, is: size(1, 1<<30), otherwise: "64KiB", with: []string{keyWebSocket},
		about: "For `websocket` that is aware: the largest message in either direction, over all its fragments, and also after inflating. A larger one ends the session with 1009.",
	},
	{
		name: keyMessageRate, is: rate(), without: "no bound", with: []string{keyWebSocket},
		about: "For `websocket` that is aware: how many messages a client may send, those of one of these times at once; pings and empty fragments count too. More end the session with 1013.",
	},
	{
		name: keyByteRate, is: byteRate(), without: "no bound", with: []string{keyWebSocket},
		about: "For `websocket` that is aware: how many bytes a client may send, those of one second at once and never fewer than `message_size`; heads of frames count too. More end the session with 1013.",
	},
	{
		name: keyPing, is: duration(0, day), otherwise: "25s", with: []string{keyWebSocket},
		about: "For `websocket` that is aware: how long client or server may be silent before it is pinged; `0s` never pings.",
	},
	{
		name: keyPong, is: duration(time.Millisecond, day), otherwise: defaultPong, with: []string{keyWebSocket},
		about: "For `websocket` that is aware: how long it then has to send anything. Otherwise the session ends: the client is told 1001, or 1011 if it was the server.",
	},
	{
		name: keyCompression, is: boolean(), otherwise: no, with: []string{keyWebSocket},
		about: "For `websocket` that is aware: `true` lets client and server agree on permessage-deflate. Compressed messages are held until they were inflated and measured, " +
			"which costs CPU, and up to 64 KiB of memory for each session.",
	},
}

// tunnel reads how what goes through a WebSocket is treated.
func (w *walker) tunnel(o object, kind string) *Tunnel {
	if kind != keyWebSocket {
		for _, key := range append([]string{keyMode}, awareKeys...) {
			o.get(key).refuse("goes with websocket alone")
		}
		return nil
	}
	if o.get(keyMode).word() == modeRaw {
		for _, key := range awareKeys {
			o.get(key).refuse("has no place beside mode: raw, which does not look at messages")
		}
		return &Tunnel{Raw: true}
	}
	return &Tunnel{
		MessageBytes: o.get(keyMessageSize).size(),
		MessageRate:  o.get(keyMessageRate).rate(),
		ByteRate:     o.get(keyByteRate).byteRate(),
		Ping:         o.get(keyPing).duration(),
		Pong:         o.get(keyPong).duration(),
		Compression:  o.get(keyCompression).boolean(),
	}
}

// noTunnel refuses what is a tunnel's beside what is none.
func (w *walker) noTunnel(o object) {
	for _, key := range append([]string{keyMode}, awareKeys...) {
		o.get(key).refuse("has no place beside broadcast")
	}
}
