package protocols

// Observer learns of every call of a port, those that are refused among them.
type Observer interface {
	// Begin is called when a call begins, before any guard is asked; [Call.Header] and its
	// like give its request's fields then. It must not wait: others' locks are held.
	Begin(call *Call)
	// End is called once when the call has ended, after what [Call.OnDone] has registered. It
	// must not wait either.
	End(call *Call, res Result)
}

// Observe tells observers that the call begins, and has those told of its end, the last of them first.
// by is kept. The protocol package that accepts the call does this once, while [Call.Header] gives the
// request's fields.
func (c *Call) Observe(by []Observer) {
	if len(by) == 0 {
		return
	}
	c.observers, c.agent = by, c.Header("user-agent")
	for _, o := range by {
		o.Begin(c)
	}
}

// Agent is the request's User-Agent, for Observers; "" if there is none.
func (c *Call) Agent() string { return c.agent }

// Tracer is who decides which calls are recorded. It is told of them as an [Observer].
type Tracer interface {
	// Value is what a context of the call has for a key that nobody else knows; nil for
	// nothing. So those who serve the call find its place in the trace, and a call pays
	// for that when they ask.
	Value(call *Call, key any) any
}

// Span records a call that was sampled. Its methods may be called concurrently, and under
// others' locks; they do not wait.
type Span interface {
	// Traceparent names the span, as a W3C traceparent.
	Traceparent() string
	// Upstream begins the call's way to a server elsewhere, and gives the fields that
	// name it there. A later one is another attempt.
	Upstream() (traceparent, tracestate string)
	// Server names the server that was chosen for it.
	Server(name string)
	// Detached ends what was the handshake of a session.
	Detached()
	// Message counts a message of a session, and may record it.
	Message(m Message)
}

// Message is one of a WebSocket session, as a [Span] sees it.
type Message struct {
	FromClient, Text bool
	Bytes            int64 // of the payload, or of its first frame; as it came, so perhaps compressed
}

// Traced says who decides whether the call is recorded, and by what it is; nil if it is not.
// An [Observer] calls it, when the call begins. Only one does.
func (c *Call) Traced(by Tracer, span Span) { c.tracer, c.span = by, span }

// Span is what records the call; nil if it is not sampled.
func (c *Call) Span() Span { return c.span }

// Parent is the client's traceparent; "" if it has sent no valid one.
func (c *Call) Parent() string { return c.traceparent }

// Unsampled has servers elsewhere learn that the call is not recorded, although its client
// has said it were. For an [Observer], when the call begins.
func (c *Call) Unsampled() {
	if p := c.Parent(); p != "" {
		c.traceparent = p[:len("00-")+32+len("-")+16+len("-")] + "00"
	}
}

// SpanID names what records the call; "" if it is not sampled.
func (c *Call) SpanID() string {
	if c.span == nil {
		return ""
	}
	return c.span.Traceparent()[36:52]
}

// traced is what the tracer knows for a context's key.
func (c *Call) traced(key any) any {
	if c.tracer == nil {
		return nil
	}
	return c.tracer.Value(c, key)
}

// Refusal is why a guard has refused the call, or why it was ended from outside; nil if
// neither is so. Of a call that was ended while its guards decided, it is theirs, if they refused it.
func (c *Call) Refusal() *Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil && (c.cut || c.refusal == nil) {
		return c.ended
	}
	return c.refusal
}
