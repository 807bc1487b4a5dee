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
)

// admission is a stream whose guards have not decided yet. Meanwhile its body
// waits, within its window.
type admission struct {
	s       *stream
	call    *protocols.Call
	to      Backend
	request Request
	end     bool
	ctx     context.Context //nolint:containedctx // it ends with the stream
	cancel  context.CancelFunc
}

// admit has guards decide on a stream. They may wait: no reader does for them.
func (c *client) admit(s *stream, r *Request, end bool, to Backend) {
	if c.sw.deciding.Add(1) > mostDeciding {
		c.sw.deciding.Add(-1)
		s.reply(overloaded)
		return
	}
	a := &admission{s: s, call: s.call, to: to, request: *r, end: end}
	a.request.Fields = slices.Clone(r.Fields) // the client's next request has these
	a.ctx, a.cancel = context.WithCancel(context.Background())
	s.admission, s.up.cut = a, false
	c.work.Go(func() {
		defer c.sw.deciding.Add(-1)
		defer a.cancel()
		in, err := c.sw.decide(a)
		c.mu.Lock()
		if s.admission == a { // otherwise it has ended
			s.admission = nil
			if err != nil {
				s.reply(refused(err))
			} else {
				a.call.Admitted(in)
				to.take(s, &a.request, end)
			}
		}
		for _, b := range c.backs {
			b.publish()
		}
		c.unlock()
		c.kick()
	})
}

// decide asks the guards. A panic of theirs refuses the call.
func (sw *Switch) decide(a *admission) (in context.Context, err error) {
	defer func() {
		a.call.Ask(nil)
		if p := recover(); p != nil {
			sw.log.Error("guard panicked", "path", a.call.Path, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	a.call.Ask((*asked)(&a.request))
	in, err = sw.Admit(a.call.In(a.ctx), a.call)
	if err != nil && a.ctx.Err() == nil && protocols.RefusalOf(err).Reason == protocols.ReasonInternal {
		sw.log.Error("guard failed", "request", a.call.RequestID(), "path", a.call.Path, "err", err)
	}
	return in, err
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

func (a *asked) Query() string {
	_, query, _ := strings.Cut(a.Path, "?")
	return query
}

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
