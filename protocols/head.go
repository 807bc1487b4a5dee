package protocols

import (
	"slices"
	"strings"
)

// Field is a field of a message's head, or of its trailers, in any version of
// HTTP. Names are compared in any case.
type Field struct{ Name, Value string }

// Head is the head of an HTTP request, whatever version its client speaks.
type Head struct {
	Method    string
	Authority string  // the host that the client asked for; "" if an HTTP/1.0 client did not say
	Path      string  // with the query, as the client sent it
	Fields    []Field // in the client's order
	// Length is how long the body is: 0 without one, -1 if nobody knows.
	Length int64
}

// Get returns the value of the first field of that name; "" if there is none.
func (h *Head) Get(name string) string {
	for i := range h.Fields {
		if h.Fields[i].Is(name) {
			return h.Fields[i].Value
		}
	}
	return ""
}

// Values returns the values of all fields of that name, behind one another with ", ".
func (h *Head) Values(name string) (all string) {
	for i := range h.Fields {
		switch f := &h.Fields[i]; {
		case !f.Is(name):
		case all == "":
			all = f.Value
		default:
			all += ", " + f.Value
		}
	}
	return all
}

// Set makes value the only one of that name.
func (h *Head) Set(name, value string) {
	for i := range h.Fields {
		if h.Fields[i].Is(name) {
			h.Fields[i].Value = value
			rest := slices.DeleteFunc(h.Fields[i+1:], func(f Field) bool { return f.Is(name) })
			h.Fields = h.Fields[:i+1+len(rest)]
			return
		}
	}
	h.Fields = append(h.Fields, Field{name, value})
}

// Remove takes out all fields of that name.
func (h *Head) Remove(name string) {
	h.Fields = slices.DeleteFunc(h.Fields, func(f Field) bool { return f.Is(name) })
}

// Is reports whether the field has that name, in any case.
func (f *Field) Is(name string) bool {
	return len(f.Name) == len(name) && (f.Name == name || strings.EqualFold(f.Name, name))
}
