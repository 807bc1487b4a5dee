package h2

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Guarded is a backend with guards of its own, which are asked in place of
// Config.Guards. Calls are told before that where they go, so that those refused count there.
func Guarded(to Backend, guards []protocols.Guard, goes *protocols.Destination) Backend {
	return &guarded{to, guards, goes}
}

type guarded struct {
	Backend
	guards []protocols.Guard
	goes   *protocols.Destination
}

// guard asks guards about a stream: at once those that need not wait.
func (c *client) guard(s *stream, r *Request, end bool, to Backend, guards []protocols.Guard) {
	ctx, rest, err := c.sw.decideNow(s.call, r, guards)
	switch {
	case err != nil:
		s.reply(refused(err))
	case len(rest) > 0:
		c.admit(s, r, end, to, ctx, rest)
	default:
		c.letIn(s, r, end, to, ctx)
	}
}

// decideNow asks the guards that need not wait.
func (sw *Switch) decideNow(call *protocols.Call, r *Request, guards []protocols.Guard) (ctx context.Context, rest []protocols.Guard, err error) {
	if _, ok := guards[0].(protocols.Quick); !ok {
		return nil, guards, nil
	}
	defer sw.decided(call, &err)
	call.Ask((*asked)(r))
	was := call.Context() // what waits gets one that ends with the stream
	ctx, rest, err = protocols.AdmitNow(was, guards, call)
	if ctx == was {
		ctx = nil
	}
	sw.failed(call, err)
	return ctx, rest, err
}

// decided is deferred by who asks guards. A panic of theirs refuses the call.
func (sw *Switch) decided(call *protocols.Call, err *error) {
	call.Ask(nil)
	p := recover()
	if p == nil {
		return
	}
	sw.log.ErrorContext(call.Context(), "guard panicked", "path", call.Path, "panic", p, "stack", string(debug.Stack()))
	*err = fmt.Errorf("panic: %v", p)
}

// letIn sends a stream on that all guards have admitted. ctx is what they have
// added; nil if nothing. From now on the call can be ended.
func (c *client) letIn(s *stream, r *Request, end bool, to Backend, ctx context.Context) {
	if ctx != nil {
		s.call.Admitted(ctx)
	}
	id, call := s.id, s.call
	why := call.OnEnd(func(why *protocols.Refusal) {
		c.mu.Lock()
		if s := c.streams[id]; s != nil && s.call == call {
			s.giveUp(frame.Cancel, refused(why))
		}
		for _, b := range c.backs {
			b.publish()
		}
		c.unlock()
		c.kick()
	})
	if why != nil {
		s.reply(refused(why))
		return
	}
	to.take(s, r, end)
}

// admission is a stream whose guards have not decided yet. Meanwhile its body
// waits, within its window.
type admission struct {
	call    *protocols.Call
	guards  []protocols.Guard
	request Request
	so      context.Context //nolint:containedctx // what guards have added so far; nil if nothing
	ctx     context.Context //nolint:containedctx // it ends with the stream
	cancel  context.CancelFunc
}

// admit has guards decide on a stream. They may wait: no reader does for them.
func (c *client) admit(s *stream, r *Request, end bool, to Backend, so context.Context, guards []protocols.Guard) {
	deciding := &c.sw.deciding[s.call.Protocol]
	if deciding.Add(1) > mostDeciding {
		deciding.Add(-1)
		s.reply(overloaded)
		return
	}
	a := &admission{call: s.call, guards: guards, request: *r, so: so}
	a.request.Fields = slices.Clone(r.Fields) // the client's next request has these
	a.ctx, a.cancel = context.WithCancel(context.Background())
	s.admission, s.up.cut = a, false
	c.work.Go(func() {
		defer deciding.Add(-1)
		defer a.cancel()
		in, err := c.sw.decide(a)
		c.mu.Lock()
		if s.admission == a { // otherwise it has ended
			s.admission = nil
			if err != nil {
				s.reply(refused(err))
			} else {
				c.letIn(s, &a.request, end, to, in)
			}
		}
		for _, b := range c.backs {
			b.publish()
		}
		c.unlock()
		c.kick()
	})
}

// decide asks the guards.
func (sw *Switch) decide(a *admission) (in context.Context, err error) {
	defer sw.decided(a.call, &err)
	a.call.Ask((*asked)(&a.request))
	if a.so != nil {
		a.call.Admitted(a.so) // what others have added, they find
	}
	in, err = protocols.Admit(a.call.In(a.ctx), a.guards, a.call)
	if a.ctx.Err() == nil {
		sw.failed(a.call, err)
	}
	return in, err
}

// failed logs an error of a guard that is no refusal.
func (sw *Switch) failed(call *protocols.Call, err error) {
	if err != nil && protocols.RefusalOf(err).Reason == protocols.ReasonInternal {
		sw.log.ErrorContext(call.Context(), "guard failed", "request", call.RequestID(), "path", call.Path, "err", err)
	}
}

// asked is a request as guards look at it.
type asked Request

func (a *asked) Get(name string) string { return (*Request)(a).Get(strings.ToLower(name)) }

func (a *asked) Values(name string) (list []string) {
	name = strings.ToLower(name)
	for i := range a.Fields {
		if a.Fields[i].Name == name {
			list = append(list, a.Fields[i].Value)
		}
	}
	return list
}

func (a *asked) Sole(name string) (value string, count int) {
	name = strings.ToLower(name)
	for i := range a.Fields {
		if a.Fields[i].Name != name {
			continue
		}
		if count++; count == 1 {
			value = a.Fields[i].Value
		}
	}
	return value, count
}

func (a *asked) Query() string {
	_, query, _ := strings.Cut(a.Path, "?")
	return query
}

func (a *asked) Target() string { return a.Path }

// Refuse is where streams go that are refused, before any guard is asked.
func Refuse(why *protocols.Refusal) Backend { return refusing{refused(why)} }

type refusing struct{ why *refusal }

func (r refusing) take(s *stream, _ *Request, _ bool) { s.reply(r.why) }

func (refusing) tells() bool { return true }

// refused says why a guard has not let a stream in.
func refused(err error) *refusal {
	r := protocols.RefusalOf(err)
	fields := http.Header{}
	why := new(refusal)
	why.http, why.text = r.HTTP(fields)
	why.grpc, _ = r.GRPC()
	why.details = r.GRPCDetails()
	for name, values := range fields {
		why.more = append(why.more, hpack.HeaderField{Name: strings.ToLower(name), Value: values[0]})
	}
	return why
}

// grpcMessage encodes a text for grpc-message: what is not printable ASCII, and
// "%", in percent (gRPC over HTTP2, Responses).
func grpcMessage(s string) string {
	plain := func(c byte) bool { return ' ' <= c && c <= '~' && c != '%' }
	for i := range len(s) {
		if !plain(s[i]) {
			var b strings.Builder
			for i := range len(s) {
				if plain(s[i]) {
					b.WriteByte(s[i])
				} else {
					fmt.Fprintf(&b, "%%%02X", s[i])
				}
			}
			return b.String()
		}
	}
	return s
}
