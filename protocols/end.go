package protocols

// End ends a call that was let in, from outside: because its credential has ended, or an
// operator says so. An open gRPC call gets the refusal's status, an open WebSocket its
// close code, any other request is cut off. It returns at once. Only the first End
// counts, and none does once the call has finished. A guard must not call it while it
// decides.
func (c *Call) End(why *Refusal) { c.end(why) }

// end is End, and says whether it counts.
func (c *Call) end(why *Refusal) bool {
	c.mu.Lock()
	if c.finished || c.settled || c.ended != nil {
		c.mu.Unlock()
		return false
	}
	c.ended = why
	f := c.onEnd
	c.onEnd, c.cut = nil, f != nil
	c.mu.Unlock()
	if f != nil {
		f(why)
	}
	return true
}

// OnEnd has f called when the call is ended from outside, and returns nil; or why that has
// happened already, and does not call it. Whoever serves the call says so, once it can be
// ended. A later f takes the place of an earlier one, and with nil nothing is called: whoever
// takes the call over from another does that first, and finds out with its own f whether it was ended
// meanwhile. f must not wait.
func (c *Call) OnEnd(f func(why *Refusal)) (why *Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil && !c.finished {
		c.onEnd = f
	}
	return c.ended
}

// Settle says that the call's handler has returned: from now on nobody can end it, and what OnEnd was
// told is not called. It reports whether the call was ended from outside before, while it was served: what
// the handler has returned with then says nothing of how it ended.
func (c *Call) Settle() (cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onEnd, c.settled = nil, true
	return c.cut
}
