package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Auth are the ways to find out who asks. Nil is one that the file does not name.
type Auth struct {
	JWT     *JWT     `json:",omitempty"`
	MTLS    *MTLS    `json:",omitempty"`
	Keys    *APIKeys `json:",omitempty"`
	Forward *Forward `json:",omitempty"`
}

// JWT are tokens of an issuer. Paths are absolute.
type JWT struct {
	Pos        Pos
	Issuer     string
	Audience   []string
	JWKS       string   // a URL; or
	Keys       []string // PEM files
	From       []string // nil for header
	Algorithms []string // nil for all
	Leeway     time.Duration
	Scopes     []string
}

// MTLS are client certificates.
type MTLS struct {
	Pos      Pos
	Allow    []string // nil for all
	Identity string   // "" for the first that there is
}

// APIKeys is a file of keys; its path is absolute.
type APIKeys struct {
	Pos                  Pos
	File, Header, Prefix string
}

// Forward is a service that is asked: either URL or GRPC.
type Forward struct {
	Pos       Pos
	URL, GRPC string
	Fields    []string // nil for Authorization and Cookie
	Remove    []string // nil for Authorization
	Upstream  []string
	Identity  string
	Expires   string // "" for ever
	Timeout   time.Duration

	Concurrency int
}

// Allow says who may, of those who are known.
type Allow struct {
	Subjects, Issuers []string
	Claims            map[string][]string
}

// Limit is what callers get of the routes that name it.
type Limit struct {
	Pos         Pos
	Name        string
	Rate        Rate // zero for no bound
	Burst       int  // 0 for a second's worth
	Per         string
	Concurrency int // 0 for no bound
	Queue       int
	Wait        time.Duration
	Shared      bool // counted in Redis
	FailClosed  bool
}

// Redis is where instances count together. Paths are absolute.
type Redis struct {
	Pos          Pos
	URL          string
	PasswordFile string
}

// auth reads how to find out who asks.
func (w *walker) auth(v value) (a Auth) {
	o := v.objectIfGiven(keyAuth)
	if v := o.get(keyJWT); v.given() {
		a.JWT = w.jwt(v)
	}
	if v := o.get(keyMTLS); v.given() {
		m := v.object("auth.mtls")
		a.MTLS = &MTLS{Pos: v.pos(), Allow: w.texts(m.get(keyAllow)), Identity: m.get("name").word()}
	}
	if v := o.get(keyKeys); v.given() {
		k := v.object("auth.keys")
		if !k.get("file").given() && k.complete() {
			k.missing("file", "where the keys are, a line for each")
		}
		a.Keys = &APIKeys{v.pos(), k.get("file").file(), k.get(keyHeader).field(), k.get("prefix").text()}
	}
	if v := o.get(keyForward); v.given() {
		a.Forward = w.forward(v)
	}
	return a
}

func (w *walker) jwt(v value) *JWT {
	o := v.object("auth.jwt")
	j := &JWT{
		Pos: v.pos(), Issuer: o.get("issuer").text(), Audience: w.texts(o.get("audience")),
		From: w.texts(o.get("from")), Leeway: o.get("leeway").duration(), Scopes: w.texts(o.get("scopes")),
	}
	if o.node.Kind != yaml.MappingNode {
		return j
	}
	if o.complete() {
		for key, why := range map[string]string{"issuer": "whose tokens are believed", "audience": "for whom tokens must be made: one for somebody else must open nothing here"} {
			if !o.get(key).given() {
				o.missing(key, why)
			}
		}
	}
	if o.only(keyJWKS, keyKeys) == keyJWKS {
		j.JWKS = o.get(keyJWKS).text()
		w.secureURL(o.get(keyJWKS), "whoever is on the way could make tokens")
	}
	for _, item := range o.get(keyKeys).texts() {
		j.Keys = append(j.Keys, item.file())
	}
	for _, item := range w.some(o.get("algorithms"), "an empty list believes no token") {
		j.Algorithms = append(j.Algorithms, item.word())
	}
	for _, item := range o.get("from").texts() {
		switch s := item.node.Value; {
		case !sourceShape.MatchString(s):
			item.problemf(`want header, subprotocol, "cookie:NAME" or "query:NAME", have %s`, shown(s))
		case strings.HasPrefix(s, "query:"):
			item.warningf("a token in a URL ends up in logs and histories of others; browsers can use subprotocol, a cookie or a ticket")
		}
	}
	return j
}

// secureURL refuses http to other machines.
func (w *walker) secureURL(v value, why string) {
	s := v.text()
	u, err := url.Parse(s)
	if s == "" || err == nil && u.Scheme == "https" && u.Host != "" {
		return
	}
	if err == nil && u.Scheme == "http" && u.Host != "" {
		ip, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
			return
		}
		v.problemf("want https: %s", why)
		return
	}
	v.problemf("want a URL with https, have %s", shown(s))
}

func (w *walker) forward(v value) *Forward {
	o := v.object("auth.forward")
	f := &Forward{
		Pos: v.pos(), GRPC: o.get(keyGRPC).text(), URL: o.get(keyURL).text(), Fields: w.texts(o.get("fields")), Remove: w.texts(o.get("remove")),
		Upstream: w.texts(o.get("upstream")), Identity: o.get("identity").field(), Expires: o.get("expires").field(),
		Timeout: o.get(keyTimeout).duration(), Concurrency: o.get("concurrency").count(),
	}
	if o.node.Kind != yaml.MappingNode {
		return f
	}
	o.only(keyURL, keyGRPC)
	if f.URL != "" {
		if u, err := url.Parse(f.URL); err != nil || !webURL.MatchString(f.URL) || u.Host == "" || u.User != nil {
			o.get(keyURL).problemf("want a URL with http or https, and no user in it, have %s", shown(f.URL))
		}
	}
	if f.GRPC != "" && !dialShape.MatchString(f.GRPC) {
		o.get(keyGRPC).problemf("want host:port, have %s", shown(f.GRPC))
	}
	return f
}

// warnOfCertificates reports certificates that are asked for in vain, or looked at and
// not asked for.
func (w *walker) warnOfCertificates(o object, c *Config) {
	looks := slices.ContainsFunc(c.Routes, func(r Route) bool { return slices.Contains(r.Auth, keyMTLS) })
	switch {
	case c.TLS.ClientAuth == "optional" && !looks:
		w.clientAuth.warningf("clients without a certificate are served all the same: no route has mtls in its auth")
	case c.TLS.ClientAuth == "" && looks:
		o.get("routes").warningf("auth: mtls lets nobody in: clients are asked for no certificate without tls.client_ca")
	}
}

// texts gives the items of a list, or of what may be one.
func (v value) texts() []value {
	if v.key != nil && v.key.is.base == isList {
		return v.w.some(v, "an empty list would fit nothing; remove it")
	}
	return v.itemsOrOne()
}

// texts reads one or several texts.
func (w *walker) texts(v value) (list []string) {
	for _, item := range v.texts() {
		if s := item.text(); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// guarded reads who may use a route, and how much.
func (w *walker) guarded(r *Route, o object, c *Config, kind string) {
	auth, allow, limit := o.get(keyAuth), o.get(keyAllow), o.get(keyLimit)
	if r.Redirect != "" || o.get(keyRedirect).given() {
		for _, v := range []value{auth, allow, limit} {
			v.refuse("has no place beside redirect")
		}
		return
	}
	list := auth
	if auth.given() && auth.node.Kind == yaml.MappingNode {
		list, r.AuthAll = auth.object("routes[].auth").get(keyAll), true
		if !list.given() {
			auth.problemf("want { all: [...] }, or a list of which one must do")
		}
	}
	for _, item := range list.texts() {
		s := item.text()
		known := map[string]bool{keyTickets: true, keyJWT: c.Auth.JWT != nil, keyMTLS: true, keyKeys: c.Auth.Keys != nil, keyForward: c.Auth.Forward != nil}
		switch {
		case s == "":
		case !slices.Contains(guards, s):
			item.problemf("want %s, have %s", strings.Join(guards, ", "), shown(s))
		case !known[s]:
			item.problemf("auth.%s is not in the file", s)
		case s == keyTickets && kind != keyWebSocket:
			item.problemf("a ticket opens a WebSocket: goes with websocket alone")
		case slices.Contains(r.Auth, s):
			item.problemf("%s is named twice", s)
		}
		r.Auth = append(r.Auth, s)
	}
	if allow.given() {
		w.allow(r, allow)
	}
	if name := limit.text(); name != "" {
		if i := slices.IndexFunc(c.Limits.Named, func(l Limit) bool { return l.Name == name }); i < 0 {
			limit.problemf("no limit of that name in limits.named%s", didYouMean(name, c.Limits.names()))
		} else if l := &c.Limits.Named[i]; l.Per == "identity" && len(r.Auth) == 0 {
			limit.warningf("%s counts per identity, and the route has no auth: callers count by their addresses", shown(name))
		} else if kind == keyWebSocket && l.Rate.N == 0 && l.Concurrency == 0 {
			limit.warningf("%s bounds nothing", shown(name))
		}
		r.Limit = name
	}
}

// own reads a key of routes that the port answers itself.
func (w *walker) own(key, why string, o object, kind string) bool {
	switch v, is := o.get(key), o.get(key).boolean(); {
	case kind != keyPath:
		v.problemf("goes with path alone")
	case o.get(keyTo).given() || o.get(keyRedirect).given():
		v.problemf("leads elsewhere too: want to, redirect or %s", key)
	case !is:
		v.problemf("false is what holds without; remove it, and say where the route leads")
	case !o.get(keyAuth).given():
		o.missing(keyAuth, why)
	}
	return true
}

func (w *walker) allow(r *Route, v value) {
	o := v.object("routes[].allow")
	if len(r.Auth) == 0 {
		v.problemf("goes with auth: nobody is known without")
	}
	a := &Allow{Subjects: w.texts(o.get("subjects")), Issuers: w.texts(o.get("issuers"))}
	for _, e := range o.get("claims").entriesIfGiven() {
		if a.Claims == nil {
			a.Claims = map[string][]string{}
		}
		if !claimShape.MatchString(e.key.Value) {
			e.value.problemf("%s is no name of a claim", shown(e.key.Value))
		}
		a.Claims[e.key.Value] = w.texts(e.value)
	}
	if a.Subjects == nil && a.Issuers == nil && a.Claims == nil && o.complete() {
		v.problemf("allows everybody: want subjects, issuers or claims")
	}
	r.Allow = a
}

// limits reads what clients may cost.
func (w *walker) limits(v value, c *Config) {
	o := v.objectIfGiven("limits")
	c.Limits.Connections = o.get(keyConnections).count()
	f := o.get("in_flight").objectIfGiven("limits.in_flight")
	c.Limits.InFlight = InFlight{f.get("http").count(), f.get(keyGRPC).count(), f.get(keyWebSocket).count()}
	c.Limits.Shed = o.get("shed").word()
	for _, e := range o.get(keyNamed).entriesIfGiven() {
		if !limitName.MatchString(e.key.Value) {
			e.value.problemf("a name has letters, digits, \"-\", \"_\" and \".\", at most 64")
		}
		c.Limits.Named = append(c.Limits.Named, w.limit(e.key.Value, e.value, c))
	}
}

// entriesIfGiven is entries of a mapping that may be missing.
func (v value) entriesIfGiven() []entry {
	if !v.given() {
		return nil
	}
	return v.entries()
}

func (w *walker) limit(name string, v value, c *Config) Limit {
	o := v.object("limits.named.*")
	l := Limit{
		Pos: v.pos(), Name: name, Rate: o.get("rate").rate(), Burst: o.get("burst").count(), Per: o.get("per").word(),
		Concurrency: o.get("concurrency").count(), Queue: o.get("queue").count(), Wait: o.get("wait").duration(),
		Shared: c.Redis != nil, FailClosed: o.get("fail").word() == "closed",
	}
	if s := o.get("shared"); s.given() {
		if l.Shared = s.boolean(); l.Shared && c.Redis == nil {
			s.problemf("goes with redis, where instances count together")
		}
	}
	if o.get("fail").given() && !l.Shared {
		o.get("fail").problemf("goes with redis: nothing else can fail")
	}
	if o.node.Kind == yaml.MappingNode && !o.get("rate").given() && !o.get("concurrency").given() && o.complete() {
		v.problemf("bounds nothing: want rate, concurrency or both")
	}
	return l
}

// names lists the limits that routes may name.
func (l *Limits) names() (list []string) {
	for i := range l.Named {
		list = append(list, l.Named[i].Name)
	}
	return list
}

// redis reads where instances count together.
func (w *walker) redis(v value) *Redis {
	if !v.given() {
		return nil
	}
	o := v.object(keyRedis)
	r := &Redis{v.pos(), o.get(keyURL).text(), o.get("password_file").file()}
	if !o.get(keyURL).given() && o.complete() {
		o.missing(keyURL, "as redis://127.0.0.1:6379/0")
	}
	switch {
	case r.URL == "" || redisURL.MatchString(r.URL):
	case strings.Contains(r.URL, "@"):
		o.get(keyURL).problemf("a password has no place here: password_file names a file that has it")
	default:
		o.get(keyURL).problemf("want redis://host:port/db, redis+sentinel://, redis+cluster://, rediss:// or unix://, have %s", shown(r.URL))
	}
	return r
}
