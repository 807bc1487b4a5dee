package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/oneport-edge/oneport/protocols"
)

// Authority is a service that decides whether calls are let in. It must be safe for
// concurrent use, and return when ctx ends. [HTTPAuthority] is one, another is in
// router/auth/extauthz.
type Authority interface {
	Ask(ctx context.Context, q Question) (Verdict, error)
}

// Question is what an [Authority] is asked.
type Question struct {
	Call *protocols.Call
	// Target is the call's path with its query, without what guards have hidden of that.
	Target string
	// Fields are those of the request's that the authority is to see.
	Fields []protocols.Field
}

// Verdict is what an [Authority] says.
type Verdict struct {
	// Status is what it says in HTTP: 2xx lets the call in.
	Status int
	// Text is for the client that is not let in; "" for what the status says.
	Text string
	// Fields are those of its answer.
	Fields []protocols.Field
	// Remove are fields of the request that are to go no further.
	Remove []string
}

// Bounds of what an authority says.
const (
	maxVerdictText   = 1024 // bytes of a refusal's text
	maxVerdictField  = 4096 // bytes of a field's value
	mostVerdictNames = 64   // fields removed
	maxVerdictRetry  = time.Hour
)

// ForwardOptions says how an authority is asked. Only Authority is needed.
type ForwardOptions struct {
	Authority Authority
	// Fields are those of the request that the authority sees; nil means Authorization and
	// Cookie. Of Authorization there may be one at most.
	Fields []string
	// Remove are fields of the request that no server gets; nil means Authorization. A Cookie
	// is the application's as often as not, and goes on unless it is named here.
	Remove []string
	// Upstream are fields of a good answer that are set in the request that a server gets, in
	// place of what the client has sent under these names.
	Upstream []string
	// Identity is the field of a good answer that says who the call is for; "" means
	// X-User-Id. Without it in the answer, the call has no identity.
	Identity string
	// Expires is the field of a good answer that says for how many seconds it holds: then a gRPC
	// call or a WebSocket ends, and what has to do with the identity. "" means that none
	// does; without it in the answer, the answer holds for ever.
	Expires string
	// By is [protocols.Identity.By]; "" means "forward".
	By string
	// Timeout is how long a call waits for an answer at most; 0 means 1 s.
	Timeout time.Duration
	// Concurrency is how many calls are asked about at once; 0 means 256. Others wait,
	// within Timeout.
	Concurrency int
	// Log has a line when the authority begins to fail, not more than one in 10 s, and when it
	// answers again; nil means no log.
	Log *slog.Logger
}

// Forward is a guard that asks another service. Without an answer nobody is let in
// (ReasonOverloaded). It may wait, and is no [protocols.Quick].
type Forward struct {
	opts    ForwardOptions
	slots   chan struct{}
	failing atomic.Bool  // and the log says so
	logged  atomic.Int64 // when, in seconds
	counts  struct{ admitted, refused, failed atomic.Uint64 }
}

// ForwardCounts says how often an authority has said what.
type ForwardCounts struct {
	Admitted, Refused uint64
	Failed            uint64 // no answer, or none that can be used
}

// NewForward checks the options.
func NewForward(opts ForwardOptions) (*Forward, error) {
	if opts.Authority == nil {
		return nil, errors.New("auth: nobody to ask")
	}
	if opts.Fields == nil {
		opts.Fields = []string{"Authorization", "Cookie"}
	}
	if opts.Remove == nil {
		opts.Remove = []string{"Authorization"}
	}
	if opts.Identity == "" {
		opts.Identity = "X-User-Id"
	}
	if opts.By == "" {
		opts.By = "forward"
	}
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	if opts.Concurrency <= 0 {
		opts.Concurrency = 256
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	names := slices.Concat(opts.Fields, opts.Remove, opts.Upstream, []string{opts.Identity})
	if opts.Expires != "" {
		names = append(names, opts.Expires)
	}
	for _, name := range names {
		if !mayForwardField(name) {
			return nil, fmt.Errorf("auth: field %q: it is not one that a guard may set or show", name)
		}
	}
	for _, name := range opts.Fields {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-forwarded-") || lower == "x-request-id" {
			return nil, fmt.Errorf("auth: field %q: the authority gets one that says what the port knows", name)
		}
	}
	opts.Fields, opts.Remove, opts.Upstream = slices.Clone(opts.Fields), slices.Clone(opts.Remove), slices.Clone(opts.Upstream)
	return &Forward{opts: opts, slots: make(chan struct{}, opts.Concurrency)}, nil
}

// mayForwardField says whether a field is free to be set or taken out: those that frame a
// message, belong to one connection, or say where it goes are not (RFC 9110, 7.6.1).
func mayForwardField(name string) bool {
	switch strings.ToLower(name) {
	case "host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive",
		"proxy-connection", "proxy-authorization", "proxy-authenticate", "expect", "http2-settings", "content-type":
		return false
	}
	return httpguts.ValidHeaderFieldName(name)
}

// Counts says how often the authority has said what, until now.
func (f *Forward) Counts() ForwardCounts {
	return ForwardCounts{f.counts.admitted.Load(), f.counts.refused.Load(), f.counts.failed.Load()}
}

// Clean implements [Cleaner].
func (f *Forward) Clean(call *protocols.Call) {
	for _, name := range f.opts.Remove {
		call.Hand(name, "")
	}
	for _, name := range f.opts.Upstream {
		call.Hand(name, "")
	}
}

// Admit implements [protocols.Guard].
func (f *Forward) Admit(ctx context.Context, call *protocols.Call) (context.Context, error) {
	f.Clean(call)
	q, refusal := f.question(call)
	if refusal != nil {
		f.counts.refused.Add(1)
		return ctx, refusal
	}
	v, err := f.ask(ctx, q)
	id := new(protocols.Identity)
	if err == nil {
		if err = v.check(); err == nil && v.admits() {
			id, err = f.identity(&v)
		}
	}
	if err != nil {
		if ctx.Err() != nil { // the call has ended
			return ctx, context.Cause(ctx)
		}
		f.failed(err)
		return ctx, &protocols.Refusal{Reason: protocols.ReasonOverloaded, RetryAfter: time.Second}
	}
	if f.failing.Swap(false) {
		f.opts.Log.Info("the service that decides on calls answers again", "guard", f.opts.By)
	}
	if refusal := v.refusal(); refusal != nil {
		f.counts.refused.Add(1)
		return ctx, refusal
	}
	f.counts.admitted.Add(1)
	f.take(call, &v)
	if id.Subject != "" {
		call.Identify(id)
	}
	endAtExpiry(call, id, time.Now(), 0)
	return ctx, nil
}

// failed notes that nobody can tell. Strangers may be able to bring this about, as by a path for which
// the authority answers 404: what is logged is bounded.
func (f *Forward) failed(err error) {
	f.counts.failed.Add(1)
	now, last := time.Now().Unix(), f.logged.Load()
	if now-last >= 10 && f.logged.CompareAndSwap(last, now) {
		f.failing.Store(true)
		f.opts.Log.Error("the service that decides on calls fails: who needs it is not let in", "guard", f.opts.By, "err", err)
	}
}

// identity reads what a good answer says of who the call is for. It has no subject
// if the answer does not say.
func (f *Forward) identity(v *Verdict) (*protocols.Identity, error) {
	id := &protocols.Identity{By: f.opts.By}
	for i := range v.Fields {
		fd := &v.Fields[i]
		switch {
		case fd.Value == "":
		case fd.Is(f.opts.Identity):
			if id.Subject != "" || !utf8.ValidString(fd.Value) || strings.TrimSpace(fd.Value) != fd.Value {
				return nil, errors.New("the answer names nobody, or two")
			}
			id.Subject = fd.Value
		case fd.Is(f.opts.Expires):
			seconds, err := strconv.ParseUint(fd.Value, 10, 31)
			if err != nil || !id.Expires.IsZero() {
				return nil, errors.New("the answer does not say for how many seconds it holds")
			}
			id.Expires = time.Now().Add(time.Duration(seconds) * time.Second)
		}
	}
	return id, nil
}

// question says what the authority is asked of a call.
func (f *Forward) question(call *protocols.Call) (Question, *protocols.Refusal) {
	path, query, _ := strings.Cut(call.Target(), "?") // what a server gets, not what it means
	if path == "" {
		path, query = (&url.URL{Path: call.Path}).EscapedPath(), call.Query()
	}
	target := forwardPath(path)
	if query != "" {
		target = call.Shown(target + "?" + query)
	}
	q := Question{Call: call, Target: target}
	for _, name := range f.opts.Fields {
		values := call.Headers(name)
		switch {
		case len(values) == 0:
		case strings.EqualFold(name, "Authorization") && len(values) > 1:
			// The authority may look at another one than the server behind.
			return q, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated, Text: "more than one Authorization"}
		case strings.EqualFold(name, "Cookie"):
			q.Fields = append(q.Fields, protocols.Field{Name: name, Value: strings.Join(values, "; ")})
		default:
			for _, v := range values {
				q.Fields = append(q.Fields, protocols.Field{Name: name, Value: v})
			}
		}
	}
	return q, nil
}

// forwardPath gives a path as it may stand in a request: what is escaped remains so.
func forwardPath(path string) string {
	plain := func(c byte) bool { return '!' <= c && c <= '~' && c != '"' && c != '?' && c != '#' }
	isHex := func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		if plain(c) && (c != '%' || i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2])) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// errForwardBusy says that too many calls are asked about.
var errForwardBusy = errors.New("too many calls are asked about at once")

func (f *Forward) ask(ctx context.Context, q Question) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.Timeout)
	defer cancel()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return Verdict{}, errForwardBusy
	}
	return f.opts.Authority.Ask(ctx, q)
}

// take does what a good verdict says.
func (f *Forward) take(call *protocols.Call, v *Verdict) {
	for i, name := range v.Remove {
		if i < mostVerdictNames && mayForwardField(name) {
			call.Hand(name, "")
		}
	}
	for _, name := range f.opts.Upstream {
		call.Hand(name, v.get(name))
	}
}

// get gives the values of a field, behind one another with ", ".
func (v *Verdict) get(name string) (all string) {
	for i := range v.Fields {
		switch fd := &v.Fields[i]; {
		case !fd.Is(name) || fd.Value == "":
		case all == "":
			all = fd.Value
		default:
			all += ", " + fd.Value
		}
	}
	return all
}

// check says what is wrong with a verdict that cannot be used.
func (v *Verdict) check() error {
	size := 0
	for _, fd := range v.Fields {
		size += len(fd.Value)
		if size > 4*maxVerdictField || len(fd.Value) > maxVerdictField || !httpguts.ValidHeaderFieldValue(fd.Value) {
			return fmt.Errorf("field %.64q of the answer is too long, or no field", fd.Name)
		}
	}
	if v.admits() || v.Status == 401 || v.Status == 403 || v.Status == 429 {
		return nil
	}
	return fmt.Errorf("it answers %d", v.Status)
}

func (v *Verdict) admits() bool { return v.Status >= 200 && v.Status <= 299 }

// refusal gives how a call is refused; nil if it is not.
func (v *Verdict) refusal() *protocols.Refusal {
	r := &protocols.Refusal{Text: verdictText(v.Text)}
	switch v.Status {
	case 401:
		r.Reason, r.Challenge = protocols.ReasonUnauthenticated, v.get("WWW-Authenticate")
	case 403:
		r.Reason = protocols.ReasonForbidden
	case 429:
		r.Reason = protocols.ReasonTooMany
		if s, err := strconv.Atoi(v.get("Retry-After")); err == nil && s > 0 {
			r.RetryAfter = min(time.Duration(min(s, 86400))*time.Second, maxVerdictRetry)
		}
	default:
		return nil
	}
	return r
}

// verdictText makes a text for clients of any protocol: one line, bounded.
func verdictText(s string) string {
	if len(s) > maxVerdictText {
		s = s[:maxVerdictText]
		for s != "" && !utf8.ValidString(s[max(len(s)-utf8.UTFMax, 0):]) && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
	}
	s = strings.ToValidUTF8(s, "")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
