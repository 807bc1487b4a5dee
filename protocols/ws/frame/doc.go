// Package frame checks WebSocket frames (RFC 6455, 5) as they go by: how they are
// laid out, whether they may stand where they do, and how large a message gets,
// also when it is compressed (RFC 7692). It reads bytes that others hold, and
// knows nothing of connections.
//
//	h, ok, err := frame.Parse(p)
//	if ok {
//		err = checker.Check(&h)
//	}
//
// The rule: an error is a *[Error], and what it says is the close frame that
// its sender gets.
//
// The limit: UTF-8 in text messages is for the endpoints to check; in the reason of
// a close frame it is checked.
package frame
