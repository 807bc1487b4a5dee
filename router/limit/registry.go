package limit

import (
	"slices"
	"sync"
)

// Registry keeps limiters by their names, so that what callers have used survives a reload.
// The zero value is empty, and it is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex // guards limiters
	limiters map[string]*Limiter
}

// Get gives the limiter of that name, or a new one. If there is one whose Per and Keys are those of o, it
// goes on with the other options of o from now on, with all that it knows: who has called how often, and
// which calls are in flight. Else the new one takes its place; calls that the old one has let in give
// their places up there. The error is that of Options.Check.
func (r *Registry) Get(o Options) (*Limiter, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.limiters[o.Name]; l != nil && l.per == o.Per && l.keys == o.keys() {
		l.adjust(&o)
		return l, nil
	}
	l, err := New(o)
	if err != nil {
		return nil, err
	}
	if r.limiters == nil {
		r.limiters = make(map[string]*Limiter)
	}
	r.limiters[o.Name] = l
	return l, nil
}

// Sweep forgets the limiters that have other names than those.
func (r *Registry) Sweep(keep []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.limiters {
		if !slices.Contains(keep, name) {
			delete(r.limiters, name)
		}
	}
}

// Stats has what each limiter has done, by its name.
func (r *Registry) Stats() map[string]Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]Stats, len(r.limiters))
	for name, l := range r.limiters {
		all[name] = l.Stats()
	}
	return all
}
