package protocols

import (
	"net/url"
	"slices"
	"strings"
)

// Asked is the head of a request, for guards to look at. Names are compared in any case.
type Asked interface {
	// Get is the first value of a field; "" if there is none.
	Get(name string) string
	// Values are all values of a field, in their order.
	Values(name string) []string
	// Query is what is behind "?" in the path, as the client has sent it.
	Query() string
}

// Ask shows a request's head to guards, until it is called with nil. The
// protocol package that has the guards asked does this.
func (c *Call) Ask(a Asked) { c.asked = a }

// Header is the first of the request's fields of that name, in any case; "" if there is
// none. It is there for guards, while they decide: later it gives "".
func (c *Call) Header(name string) string {
	if c.asked == nil {
		return ""
	}
	return c.asked.Get(name)
}

// Headers are all of the request's fields of that name. Like Header, it is for guards.
func (c *Call) Headers(name string) []string {
	if c.asked == nil {
		return nil
	}
	return c.asked.Values(name)
}

// Sole is the first of the request's fields of that name, and how many there are. It is what
// Headers is, without a slice. Like Header, it is for guards.
func (c *Call) Sole(name string) (value string, count int) {
	if a, ok := c.asked.(interface {
		Sole(name string) (value string, count int)
	}); ok {
		return a.Sole(name)
	}
	values := c.Headers(name)
	if len(values) == 0 {
		return "", 0
	}
	return values[0], len(values)
}

// Query is the request's query as the client has sent it, without "?". Like Header, it is
// for guards.
func (c *Call) Query() string {
	if c.asked == nil {
		return ""
	}
	return c.asked.Query()
}

// Target is the request's path as the client has sent it, with the query: nothing in
// it is decoded. "" if it cannot be told. Like Header, it is for guards.
func (c *Call) Target() string {
	if t, ok := c.asked.(interface{ Target() string }); ok {
		return t.Target()
	}
	return ""
}

// Hand sets a field of the request that a server elsewhere gets: what the client has sent
// under that name does not reach it, and with an empty value nothing does. Guards call it,
// while they decide.
func (c *Call) Hand(name, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.handed, func(f Field) bool { return f.Is(name) }); i >= 0 {
		c.handed[i].Value = value
		return
	}
	c.handed = append(c.handed, Field{name, value})
}

// Handed are the fields that guards have set, for whoever sends the request on. They are
// read-only.
func (c *Call) Handed() []Field {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handed
}

// Hide takes a parameter out of the query that a server elsewhere gets: one that has held a
// credential. Guards call it, while they decide.
func (c *Call) Hide(parameter string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.hidden, parameter) {
		c.hidden = append(c.hidden, parameter)
	}
}

// Shown is a request's path, with its query, without what was hidden of it.
func (c *Call) Shown(path string) string {
	c.mu.Lock()
	hidden := c.hidden
	c.mu.Unlock()
	if len(hidden) == 0 {
		return path
	}
	before, query, ok := strings.Cut(path, "?")
	if !ok {
		return path
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !slices.Contains(hidden, plain) {
			kept = append(kept, part)
		}
	}
	if len(kept) == 0 {
		return before
	}
	return before + "?" + strings.Join(kept, "&")
}

// Select names the subprotocol that a WebSocket's handshake is answered with if nobody
// behind chooses one: a browser that has offered some takes no answer without. Guards call it
// that have read the client's list, while they decide.
func (c *Call) Select(subprotocol string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.selected = subprotocol
}

// Selected is the subprotocol that a guard has named; "" for none.
func (c *Call) Selected() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.selected
}
