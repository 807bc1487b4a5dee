// Package nbio has writes to a socket that do not wait: what the socket does
// not take is kept, and written by whoever has time to wait. A goroutine that
// serves many connections can so write to each of them itself.
package nbio
