package upstream

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// What copies of requests may cost.
const (
	mostCopies  = 64       // at once; more are left out
	mostCopied  = 64 << 10 // of a body; requests with more are left out
	copyTimeout = time.Minute
)

// Copied is the copy of a request that an upstream is to get for its own ends. All its
// methods do nothing for nil.
type Copied struct {
	up   *Upstream
	call *protocols.Call
	head protocols.Head
	body []byte
	over bool // the body is too long
	end  bool // all of it has come
}

// Copy begins the copy of a request whose context is ctx. What is sent is
// sent by Send.
func (u *Upstream) Copy(ctx context.Context) *Copied {
	return &Copied{up: u, call: protocols.CallFrom(ctx)}
}

// Head takes the request's head.
func (c *Copied) Head(h *protocols.Head) {
	if c == nil {
		return
	}
	c.head = *h
	c.head.Fields = slices.Clone(h.Fields)
}

// Body takes what a Read of its body has given.
func (c *Copied) Body(p []byte, err error) {
	if c == nil {
		return
	}
	c.end = c.end || errors.Is(err, io.EOF)
	switch {
	case c.over:
	case len(c.body)+len(p) > mostCopied:
		c.over, c.body = true, nil
	default:
		c.body = append(c.body, p...)
	}
}

// Unread takes back the end of what was taken: it will be taken again.
func (c *Copied) Unread(n int) {
	if c != nil && !c.over {
		c.body = c.body[:max(0, len(c.body)-n)]
	}
}

// Send sends the copy, if it is whole and there are not too many already. It does
// not wait: the answer is nobody's business.
func (c *Copied) Send() {
	switch {
	case c == nil || c.over || c.head.Length > 0 && c.head.Length != int64(len(c.body)) || c.head.Length < 0 && !c.end:
		return
	case c.up.copies.Add(1) > mostCopies:
		c.up.copies.Add(-1)
		return
	}
	if c.head.Length < 0 {
		c.head.Length = int64(len(c.body))
	}
	c.up.mu.Lock()
	defer c.up.mu.Unlock()
	if c.up.closed {
		c.up.copies.Add(-1)
		return
	}
	c.up.work.Go(func() {
		defer c.up.copies.Add(-1)
		ctx, cancel := context.WithTimeout(c.up.ctx, copyTimeout)
		defer cancel()
		if c.call != nil {
			ctx = context.WithValue(c.call.In(ctx), copyKey{}, true)
		}
		_ = c.up.Do(ctx, &copying{Copied: c}) // it is logged
	})
}

// copyKey marks the context of a copy.
type copyKey struct{}

// spanOf is what records the call on its way to a server; nil if nothing does, or it is a copy's way.
func spanOf(ctx context.Context, call *protocols.Call) protocols.Span {
	if call == nil || call.Span() == nil || ctx.Value(copyKey{}) != nil {
		return nil
	}
	return call.Span()
}

// copying is the exchange of a copy.
type copying struct {
	*Copied
	read int
}

func (x *copying) Head(h *protocols.Head) {
	fields := append(h.Fields[:0], x.head.Fields...) //nolint:gocritic // h.Fields is theirs below
	*h = x.head
	h.Fields = fields
}

func (x *copying) Read(p []byte) (int, error) {
	n := copy(p, x.body[x.read:])
	if x.read += n; n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (x *copying) Unread(p []byte)                                 { x.read -= len(p) }
func (*copying) Trailers(list []protocols.Field) []protocols.Field { return list }
func (*copying) StopReading()                                      {}
func (*copying) Inform(int, []protocols.Field) error               { return nil }
func (*copying) Respond(int, []protocols.Field, int64) error       { return nil }
func (*copying) Write(p []byte) (int, error)                       { return len(p), nil }
func (*copying) Flush() error                                      { return nil }
func (*copying) Finish([]protocols.Field) error                    { return nil }
func (*copying) Abort()                                            {}
