package edge

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/conn"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/upstream"
)

// Explanation says what becomes of a call.
type Explanation struct {
	Call     string `json:"call"`
	Protocol string `json:"protocol"` // http, grpc, websocket
	// Route takes it; nil if none does.
	Route *Place `json:"route,omitempty"`
	// Exactly one of these says what comes of it.
	Upstreams   []Target `json:"upstreams,omitempty"`   // one of them gets it
	Redirect    string   `json:"redirect,omitempty"`    // the status and the Location
	Passthrough string   `json:"passthrough,omitempty"` // the server that gets the connection
	Answer      string   `json:"answer,omitempty"`      // of the port itself

	// With Upstreams: who gets a copy, who takes it if they cannot be reached, and
	// what they get instead of the path and the host.
	Mirror   *Target `json:"mirror,omitempty"`
	Fallback *Target `json:"fallback,omitempty"`
	Path     string  `json:"path,omitempty"`
	Host     string  `json:"host,omitempty"`

	// Guards are asked before, in this order.
	Guards []string `json:"guards,omitempty"`

	Passed   []Passed  `json:"passed,omitempty"`
	Timeouts []Timeout `json:"timeouts,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
}

// Place is something of the file.
type Place struct {
	Name string `json:"name"`
	Line int    `json:"line"`
	What string `json:"what,omitempty"`
}

// Target is an upstream.
type Target struct {
	Place
	Servers []string `json:"servers"`
	Speaks  string   `json:"speaks"`
	Weight  int      `json:"weight,omitempty"` // its part, if there are several
}

// Passed is a route that does not take the call.
type Passed struct {
	Place
	Why string `json:"why"`
}

// Timeout is how long something may take.
type Timeout struct {
	What string        `json:"what"`
	For  time.Duration `json:"-"`
	Text string        `json:"for"`
}

// Explain says which route of a file takes a call, and why the ones before do not,
// as the server would decide. The error is of the question.
func Explain(cfg *config.Config, q Question) (*Explanation, error) {
	encrypted := slices.ContainsFunc(cfg.Listen, func(l config.Listener) bool { return !l.Plaintext })
	a, err := q.read(encrypted)
	if err != nil {
		return nil, err
	}
	x := &Explanation{Call: a.Method + " " + a.target, Protocol: a.Protocol.String()}
	if a.Protocol == protocols.GRPC {
		x.Call = a.target
	}
	plain := slices.ContainsFunc(cfg.Listen, func(l config.Listener) bool { return l.Plaintext })
	switch {
	case a.tls && !encrypted:
		x.Answer = "400: every listener has tls: off"
		return x, nil
	case !a.tls && !plain:
		x.Answer = "400: every listener has TLS"
		return x, nil
	}
	if a.tls && x.passthrough(cfg, a) {
		return x, nil
	}
	if a.tls && cfg.TLS.ClientCA != "" && !cfg.TLS.AnyHost && a.Host != "" && router.Misdirected(a.sni, a.Host) {
		x.Answer = x.status(http.StatusMisdirectedRequest, "UNKNOWN") + fmt.Sprintf(": the connection is for %s, the call for %s, and clients have certificates",
			cmp.Or(a.sni, "no name"), a.Host)
		return x, nil
	}
	x.match(cfg, a)
	return x, nil
}

// status is an answer's status in the call's protocol.
func (x *Explanation) status(http int, grpc string) string {
	if x.Protocol == protocols.GRPC.String() {
		return grpc
	}
	return fmt.Sprint(http)
}

// passthrough looks for a rule that takes the connection.
func (x *Explanation) passthrough(cfg *config.Config, a *asked) bool {
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		if r.Passthrough == "" {
			continue
		}
		if ruleOf(r).Matches(a.sni, a.alpn) {
			x.Route, x.Passthrough = place(r), r.Passthrough
			x.timeout("from accept to the server's side, dialing included", conn.DefaultDeadline)
			x.Notes = append(x.Notes, "the connection goes on byte for byte: nobody looks into its calls, and the other routes do not count")
			return true
		}
		x.Passed = append(x.Passed, Passed{*place(r), "for connections of " + takes(r) + " alone"})
	}
	return false
}

// match asks the server's own matcher.
func (x *Explanation) match(cfg *config.Config, a *asked) {
	var routes []router.Route
	var from []*config.Route
	for i := range cfg.Routes {
		if r := &cfg.Routes[i]; r.Passthrough == "" {
			routes, from = append(routes, routeOf(r, nil)), append(from, r)
		}
	}
	for name := range a.Header {
		if rest.Forwarding(strings.ToLower(name)) {
			a.Header.Del(name)
			x.Notes = append(x.Notes, name+" is taken out before: strangers do not say who they are")
		}
	}
	i, why, err := router.Match(routes, a.Ask)
	if err != nil {
		x.Answer = "400: " + err.Error()
		return
	}
	for j, w := range why {
		x.Passed = append(x.Passed, Passed{*place(from[j]), w})
	}
	x.timeout("the head of the request", h2.DefaultLimits().HeaderTimeout)
	if i < 0 {
		x.Answer = x.status(http.StatusNotFound, "UNIMPLEMENTED") + ": no route takes it"
		return
	}
	x.Route = place(from[i])
	if from[i].Tickets {
		x.guards(cfg, from[i])
		x.Answer = "200: a ticket for a WebSocket, to who may POST"
		return
	}
	if from[i].Refresh {
		x.guards(cfg, from[i])
		x.Answer = "200: open sessions end with the credentials of a POST"
		return
	}
	if from[i].Broadcast {
		x.guards(cfg, from[i])
		x.Answer = "the broadcast: those who may subscribe to a channel, its namespace says"
		return
	}
	if r := &routes[i]; r.Redirect != "" {
		x.Redirect = fmt.Sprintf("%d %s", cmp.Or(r.RedirectStatus, http.StatusPermanentRedirect), r.Location(a.Path, a.query))
		return
	}
	if routes[i].Preflight(a.Ask) {
		x.Answer = "204: what pages of other origins may do, as the route's cors says"
		return
	}
	if asked := routes[i].ServerPath(a.Path, a.query); from[i].Rewrite != "" {
		x.Path = asked
	}
	x.Host = from[i].RewriteHost
	x.guards(cfg, from[i])
	x.upstreams(cfg, from[i], a.Protocol)
}

// guards says who may use the route, and how much.
func (x *Explanation) guards(cfg *config.Config, r *config.Route) {
	if len(r.Auth) > 0 {
		word := " or "
		if r.AuthAll {
			word = " and "
		}
		x.Guards = append(x.Guards, "auth: "+strings.Join(r.Auth, word))
	}
	if a := r.Allow; a != nil {
		var list []string
		if a.Subjects != nil {
			list = append(list, "subjects "+strings.Join(a.Subjects, ", "))
		}
		if a.Issuers != nil {
			list = append(list, "issuers "+strings.Join(a.Issuers, ", "))
		}
		for _, name := range slices.Sorted(maps.Keys(a.Claims)) {
			list = append(list, name+" "+strings.Join(a.Claims[name], ", "))
		}
		x.Guards = append(x.Guards, "allow: "+strings.Join(list, "; "))
	}
	for _, l := range cfg.Limits.Named {
		if l.Name != r.Limit {
			continue
		}
		var list []string
		if l.Rate.N > 0 {
			list = append(list, limitOf(&l, nil).Rate.String())
		}
		if l.Concurrency > 0 {
			list = append(list, fmt.Sprint(l.Concurrency, " at a time"))
		}
		x.Guards = append(x.Guards, fmt.Sprintf("limit: %s, line %d: %s, per %s", l.Name, l.Pos.Line, strings.Join(list, " and "), l.Per))
	}
}

// upstreams says where the call goes, and how long that may take.
func (x *Explanation) upstreams(cfg *config.Config, r *config.Route, p protocols.Protocol) {
	shares := r.Split
	if r.To != "" {
		shares = []config.Share{{To: r.To}}
	}
	var connect, wait time.Duration // of the slowest
	for _, s := range shares {
		u := upstreamOf(cfg, s.To)
		connect, wait = max(connect, u.Options.Connect), max(wait, u.Options.Streams.Wait)
		x.Upstreams = append(x.Upstreams, *targetOf(u, s.Weight))
	}
	if r.Mirror != "" {
		x.Mirror = targetOf(upstreamOf(cfg, r.Mirror), 0)
	}
	if f := r.Fallback; f != nil && f.To != "" {
		x.Fallback = targetOf(upstreamOf(cfg, f.To), 0)
	} else if f != nil {
		x.Notes = append(x.Notes, fmt.Sprintf("if no server can be reached, the answer is the route's fallback, %s", x.status(f.Status, "UNAVAILABLE")))
	}
	x.howLong(r, connect, wait, p)
}

// howLong says which timeouts hold on the way to an upstream.
func (x *Explanation) howLong(r *config.Route, connect, wait time.Duration, p protocols.Protocol) {
	if p == protocols.HTTP {
		x.timeout("a standstill of the request's body", h2.DefaultLimits().BodyIdle)
	}
	if x.Upstreams[0].Speaks == http2 {
		x.timeout("a turn on a connection to the server", wait)
	}
	x.timeout("connecting to the server", connect)
	switch p {
	case protocols.WebSocket:
		x.timeout("the server's answer to the handshake, connecting included", ws.TunnelTimeout)
		if t := r.Tunnel; t != nil && t.Ping > 0 {
			x.timeout("the silence of client or server until it is pinged", t.Ping)
			x.timeout("its silence then", t.Pong)
		} else {
			x.Notes = append(x.Notes, "the session has no end of its own here: its pings are the server's business")
		}
	case protocols.GRPC:
		if r.CallTimeout > 0 {
			x.timeout("the call, or what grpc-timeout says if that is less", r.CallTimeout)
		} else {
			x.Notes = append(x.Notes, "the call's own deadline is the client's grpc-timeout, which the server gets; there is no other")
		}
	case protocols.HTTP:
		x.timeout("the head of the server's answer", cmp.Or(r.AnswerTimeout, h2.DefaultLimits().Answer))
	}
}

// upstreamOf finds an upstream; config has seen to it that it is there.
func upstreamOf(cfg *config.Config, name string) *config.Upstream {
	for i := range cfg.Upstreams {
		if cfg.Upstreams[i].Name == name {
			return &cfg.Upstreams[i]
		}
	}
	return &config.Upstream{Name: name}
}

const http2 = "HTTP/2"

func targetOf(u *config.Upstream, weight int) *Target {
	t := &Target{Place{Name: u.Name, Line: u.Pos.Line}, u.Servers, "HTTP/1.1", weight}
	for _, s := range u.Servers {
		if is2, err := upstream.Check(s); err == nil && is2 {
			t.Speaks = http2
		}
	}
	return t
}

func (x *Explanation) timeout(what string, d time.Duration) {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	x.Timeouts = append(x.Timeouts, Timeout{what, d, text})
}

// place is a route of the file, and what it takes.
func place(r *config.Route) *Place { return &Place{r.Name, r.Pos.Line, takes(r)} }

// takes says in the file's words what a route takes.
func takes(r *config.Route) string {
	var list []string
	add := func(key string, values ...string) {
		if s := strings.Join(values, ", "); s != "" {
			list = append(list, key+" "+s)
		}
	}
	add("grpc", r.GRPC)
	add("websocket", r.WebSocket)
	add("path", r.Path)
	add("sni", r.SNI)
	add("alpn", r.ALPN)
	add("host", r.Hosts...)
	add("method", r.Methods...)
	var fields []string
	for name, value := range r.Headers {
		fields = append(fields, strings.TrimSuffix(name+": "+value, ": "))
	}
	slices.Sort(fields)
	add("header", fields...)
	return strings.Join(list, ", ")
}

// Text is the explanation for people; file is the one it is of.
func (x *Explanation) Text(file string) string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s%s\n", label, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s (%s)\n", printable(x.Call), x.Protocol)
	if r := x.Route; r != nil {
		line("route", "%s, %s:%d: %s", r.Name, file, r.Line, r.What)
	}
	label := "asks"
	for _, g := range x.Guards {
		line(label, "%s", g)
		label = ""
	}
	switch {
	case len(x.Upstreams) > 0:
		x.targets(line, file)
	case x.Redirect != "":
		line("answer", "%s", x.Redirect)
	case x.Passthrough != "":
		line("goes to", "%s, TLS and all", x.Passthrough)
	default:
		line("answer", "%s", x.Answer)
	}
	label = "not by"
	for _, p := range x.Passed {
		line(label, "%s, line %d: %s", p.Name, p.Line, p.Why)
		label = ""
	}
	label = "at most"
	for _, t := range x.Timeouts {
		line(label, "%-5s %s", t.Text, t.What)
		label = ""
	}
	for _, n := range x.Notes {
		line("", "%s", n)
	}
	return b.String()
}

// targets writes where a call goes.
func (x *Explanation) targets(line func(label, format string, args ...any), file string) {
	total := 0
	for _, t := range x.Upstreams {
		total += t.Weight
	}
	label := "goes to"
	for _, t := range x.Upstreams {
		part := ""
		if t.Weight > 0 {
			part = fmt.Sprintf(" (%d of %d)", t.Weight, total)
		}
		line(label, "%s%s, %s", t.Name, part, t.where(file))
		label = ""
	}
	if x.Path != "" {
		line("as", "%s", x.Path)
	}
	if x.Host != "" {
		line("for host", "%s", x.Host)
	}
	if x.Fallback != nil {
		line("or else", "%s, %s", x.Fallback.Name, x.Fallback.where(file))
	}
	if x.Mirror != nil {
		line("copied to", "%s, %s", x.Mirror.Name, x.Mirror.where(file))
	}
}

func (t *Target) where(file string) string {
	return fmt.Sprintf("%s:%d: %s (%s)", file, t.Line, strings.Join(t.Servers, ", "), t.Speaks)
}

// printable is a text of the user's without what a terminal would obey.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return url.PathEscape(s)
	}
	return s
}
