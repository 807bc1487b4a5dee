// Package nbio makes a socket's system calls itself: without telling Go's scheduler,
// which has them cheaper ([Socket]), and, for writes, without waiting ([Keeper]): what the
// socket does not take is kept, and written by whoever has time to wait. A goroutine that
// serves many connections can so write to each of them itself.
package nbio
