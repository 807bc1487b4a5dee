package console

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// sample is what the port says of itself at one time.
type sample struct {
	at        time.Time
	stats     *adminv1.Stats // nil if the port does not have them
	conns     []*adminv1.Connection
	total     int
	upstreams []*adminv1.Upstream
}

// mostShown is how many connections are asked for: the API gives no more at a time.
const mostShown = 1000

// sample asks for all that a view shows. What the port does not have is left out; an error
// means that it gives no connections either.
func (c *Client) sample(ctx context.Context, filter *adminv1.Filter) (*sample, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	ctx = c.with(ctx)
	list, err := c.api.ListConnections(ctx, &adminv1.ListConnectionsRequest{Filter: filter, Sort: "bytes_out", Limit: mostShown})
	if err != nil {
		return nil, c.explain(err)
	}
	s := &sample{at: time.Now(), conns: list.GetConnections(), total: int(list.GetTotal())}
	if res, err := c.api.GetStats(ctx, new(adminv1.GetStatsRequest)); err == nil {
		s.stats = res.GetStats()
	}
	if res, err := c.api.ListUpstreams(ctx, new(adminv1.ListUpstreamsRequest)); err == nil {
		s.upstreams = res.GetUpstreams()
	}
	return s, nil
}

// rates are a sample as compared with the one before.
type rates struct {
	*sample
	seconds float64 // between the two; 0 for the first
	was     *sample
	in, out map[string]float64 // bytes a second, by the id of a connection
}

func compare(was, is *sample) *rates {
	r := &rates{sample: is, was: was, in: make(map[string]float64), out: make(map[string]float64)}
	if was == nil {
		return r
	}
	if r.seconds = is.at.Sub(was.at).Seconds(); r.seconds <= 0 {
		return r
	}
	before := make(map[string]*adminv1.Connection, len(was.conns))
	for _, c := range was.conns {
		before[c.GetId()] = c
	}
	for _, c := range is.conns {
		b := before[c.GetId()] // nil: it is new, and has none
		r.in[c.GetId()] = max(0, float64(c.GetBytesIn()-b.GetBytesIn())/r.seconds)
		r.out[c.GetId()] = max(0, float64(c.GetBytesOut()-b.GetBytesOut())/r.seconds)
	}
	return r
}

// perSecond is how fast a count grows. One that is less than it was has begun anew.
func (r *rates) perSecond(was, is uint64) float64 {
	if r.seconds <= 0 || is < was {
		return 0
	}
	return float64(is-was) / r.seconds
}

// protocolBefore is a protocol's stats of the sample before; nil if there are none.
func (r *rates) protocolBefore(name string) *adminv1.ProtocolStats {
	if r.was == nil {
		return nil
	}
	for _, p := range r.was.stats.GetProtocols() {
		if p.GetProtocol() == name {
			return p
		}
	}
	return nil
}

// quantile is how long a share of the calls between two samples has taken at most, as far
// as buckets tell; ok is false if there were none.
func quantile(q float64, was, is *adminv1.ProtocolStats) (d time.Duration, ok bool) {
	counts, bounds := is.GetBucketCounts(), is.GetBucketBounds()
	n := make([]uint64, len(counts))
	for i := range counts {
		n[i] = counts[i]
		if old := was.GetBucketCounts(); len(old) == len(counts) && old[i] <= counts[i] {
			n[i] -= old[i]
		}
	}
	if len(n) == 0 || n[len(n)-1] == 0 || len(bounds) == 0 {
		return 0, false
	}
	want := q * float64(n[len(n)-1])
	for i, bound := range bounds {
		if i < len(n) && float64(n[i]) >= want {
			return time.Duration(bound * float64(time.Second)), true
		}
	}
	return time.Duration(bounds[len(bounds)-1] * float64(time.Second)), true // or more
}

// order are the ways to sort connections, the first being the default.
var order = []struct {
	name string
	less func(r *rates, a, b *adminv1.Connection) int
}{
	{"busiest", func(r *rates, a, b *adminv1.Connection) int {
		return cmp.Compare(r.in[b.GetId()]+r.out[b.GetId()], r.in[a.GetId()]+r.out[a.GetId()])
	}},
	{"bytes in", func(_ *rates, a, b *adminv1.Connection) int { return cmp.Compare(b.GetBytesIn(), a.GetBytesIn()) }},
	{"bytes out", func(_ *rates, a, b *adminv1.Connection) int { return cmp.Compare(b.GetBytesOut(), a.GetBytesOut()) }},
	{"calls", func(_ *rates, a, b *adminv1.Connection) int { return cmp.Compare(b.GetOpenCalls(), a.GetOpenCalls()) }},
	{"oldest", func(_ *rates, a, b *adminv1.Connection) int {
		return a.GetAccepted().AsTime().Compare(b.GetAccepted().AsTime())
	}},
}

// sorted are the connections in an order, the id last so that equal ones stay in place.
func (r *rates) sorted(by int) []*adminv1.Connection {
	list := slices.Clone(r.conns)
	slices.SortFunc(list, func(a, b *adminv1.Connection) int {
		return cmp.Or(order[by].less(r, a, b), strings.Compare(a.GetId(), b.GetId()))
	})
	return list
}

// parseFilter reads what somebody has typed: "state=idle protocol=grpc alice". What has a
// name goes to the API; the other words must all be in what is shown of a connection.
func parseFilter(text string) (*adminv1.Filter, []string) {
	f := new(adminv1.Filter)
	var words []string
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "protocol":
			f.Protocol = value
		case "state":
			f.State = value
		case "user":
			f.Identity = value
		case "remote":
			f.Remote = value
		case "route":
			f.Route = value
		case "upstream":
			f.Upstream = value
		default:
			words = append(words, strings.ToLower(word))
		}
	}
	return f, words
}

// Filter reads "state=idle protocol=grpc", as top's filter does: protocol, state, user, remote,
// route and upstream; other words are left out.
func Filter(text string) *adminv1.Filter {
	f, _ := parseFilter(text)
	return f
}

// has reports whether all words stand in what is shown of a connection.
func has(c *adminv1.Connection, words []string) bool {
	text := strings.Join([]string{c.GetId(), c.GetRemote(), c.GetKind(), c.GetState(), c.GetSni(), c.GetTls().GetClientSubject()}, " ")
	for _, call := range c.GetCalls() {
		text += strings.Join([]string{"", call.GetProtocol(), call.GetHost(), call.GetPath(), call.GetRoute(), call.GetUpstream(), call.GetIdentity().GetSubject()}, " ")
	}
	text = strings.ToLower(text)
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}
