package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options configures Run. Address is required.
type Options struct {
	// Address is what to dial: host:port.
	Address string
	// From are the clients to be, of Clients. Nil means all.
	From []string
	// Insecure leaves out whether the certificate's CA is known.
	Insecure bool
	// CAs are those that may have issued the certificate. Nil means the system's.
	CAs *x509.CertPool
	// ServerName is what clients ask for. "" means the host of Address.
	ServerName string
	// Path is an ordinary request's. "" means "/".
	Path string
	// WebSocketPath is that of a WebSocket. "" means "/ws", where it need not be.
	WebSocketPath string
	// GRPCMethod is a unary method, as pkg.Service/Method, that takes an empty message. ""
	// means the health service's, which need not be there.
	GRPCMethod string
	// Timeout is how long each answer is waited for, and the longest that silence is
	// measured. Zero means 5 s.
	Timeout time.Duration
	// Patience is how long a server may bear a client that says nothing: past that it is a
	// fault. Silence is measured up to Timeout only. Zero means a minute.
	Patience time.Duration
	// Dial opens the connections. Nil means TCP.
	Dial func(context.Context) (net.Conn, error)
}

// Status is what became of a check.
type Status string

// What may become of a check.
const (
	OK      Status = "ok"
	Warn    Status = "warn"    // it works, but not as well as it could
	Fail    Status = "fail"    // clients of this kind fail
	Skipped Status = "skipped" // there is nothing to look at
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	From   string `json:"from"` // the client, or "tls" for what all of them need
	Status Status `json:"status"`
	// Saw is what was seen, a sentence.
	Saw string `json:"saw"`
	// Why says why it matters, and what to do; "" where nothing is to be done.
	Why string `json:"why,omitempty"`
}

// Report is all that was found.
type Report struct {
	Address string        `json:"address"`
	Took    time.Duration `json:"took_ns"`
	Checks  []Check       `json:"checks"`
}

// Count says how many checks came out so.
func (r *Report) Count(s Status) (n int) {
	for _, c := range r.Checks {
		if c.Status == s {
			n++
		}
	}
	return n
}

// ErrUnreachable says that nobody could be connected to.
var ErrUnreachable = errors.New("cannot connect")

// Clients are those that Run can be.
func Clients() []string {
	return []string{"curl-h1", "curl-h2", "grpc", "no-alpn", "websocket", "browser"}
}

// probe is a check to be made.
type probe struct {
	name, from string
	run        func(*patient) Check
	why        string // see Check.Why; a check may know better
}

// phase is when a check is made: those that may be a nuisance to others come later.
type phase int

const (
	calm    phase = iota
	unruly        // one at a time: a bad server suffers from them
	waiting       // they hold connections that say nothing
)

func (ph phase) parallel() int {
	if ph == unruly {
		return 1
	}
	return 8 // most wait for an answer
}

func (pr *probe) phase() phase {
	switch pr.name {
	case "plaintext-on-tls", "garbage", "silent-neighbours", "large-header":
		return unruly
	case "silent-client", "silent-tls-client":
		return waiting
	}
	return calm
}

// Run asks. The error is of Options, or ErrUnreachable.
func Run(ctx context.Context, opts Options) (*Report, error) {
	p, err := newPatient(ctx, opts)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := p.reach(); err != nil {
		return nil, err
	}
	p.survey()
	var todo []probe
	for _, list := range [][]probe{tlsProbes(), http1Probes(), http2Probes(), grpcProbes(), websocketProbes(), browserProbes()} {
		for _, pr := range list {
			if pr.from == "tls" || slices.Contains(p.From, pr.from) {
				todo = append(todo, pr)
			}
		}
	}
	report := &Report{Address: opts.Address, Checks: make([]Check, len(todo))}
	for _, ph := range []phase{calm, unruly, waiting} {
		turn := make(chan struct{}, ph.parallel())
		var all sync.WaitGroup
		for i, pr := range todo {
			if pr.phase() != ph {
				continue
			}
			turn <- struct{}{}
			all.Go(func() {
				defer func() { <-turn }()
				report.Checks[i] = p.make(pr)
			})
		}
		all.Wait()
	}
	report.Took = time.Since(began)
	return report, ctx.Err()
}

// make makes one check.
func (p *patient) make(pr probe) Check {
	var c Check
	switch {
	case pr.from != "tls" && p.noTLS != "":
		c = skip("%s", p.noTLS)
	case pr.from != "tls" && p.wantsCert:
		c = skip("the server wants a client certificate")
	default:
		c = pr.run(p)
	}
	c.Name, c.From = pr.name, pr.from
	if c.Status == Warn || c.Status == Fail {
		c.Why = cmp.Or(c.Why, pr.why)
	}
	return c
}

func ok(format string, args ...any) Check {
	return Check{Status: OK, Saw: fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) Check {
	return Check{Status: Warn, Saw: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) Check {
	return Check{Status: Fail, Saw: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) Check {
	return Check{Status: Skipped, Saw: fmt.Sprintf(format, args...)}
}

// because gives a check a reason of its own.
func (c Check) because(why string) Check {
	c.Why = why
	return c
}

// newPatient checks opts, and fills them in.
func newPatient(ctx context.Context, opts Options) (*patient, error) {
	host, port, err := net.SplitHostPort(opts.Address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("doctor: %q: want host:port, as example.com:443", opts.Address)
	}
	p := &patient{Options: opts, ctx: ctx}
	for _, from := range opts.From {
		if !slices.Contains(Clients(), from) {
			return nil, fmt.Errorf("doctor: there is no client %q: want some of %s", from, strings.Join(Clients(), ", "))
		}
	}
	if len(opts.From) == 0 {
		p.From = Clients()
	}
	p.grpcAsked, p.wsAsked = opts.GRPCMethod != "", opts.WebSocketPath != ""
	p.ServerName = cmp.Or(opts.ServerName, host)
	p.Path, p.WebSocketPath = cmp.Or(opts.Path, "/"), cmp.Or(opts.WebSocketPath, "/ws")
	p.GRPCMethod = strings.TrimPrefix(cmp.Or(opts.GRPCMethod, "grpc.health.v1.Health/Check"), "/")
	for name, text := range map[string]string{"path": p.Path, "WebSocket path": p.WebSocketPath, "server name": p.ServerName, "gRPC method": p.GRPCMethod} {
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("doctor: %s %q: want no spaces", name, text)
		}
	}
	switch {
	case p.Path[0] != '/' || p.WebSocketPath[0] != '/':
		return nil, errors.New("doctor: want paths that begin with /")
	case strings.Count(p.GRPCMethod, "/") != 1:
		return nil, fmt.Errorf("doctor: %q: want a gRPC method, as helloworld.Greeter/SayHello", opts.GRPCMethod)
	}
	p.authority = p.ServerName
	if strings.Contains(p.authority, ":") {
		p.authority = "[" + p.authority + "]"
	}
	if port != "443" {
		p.authority += ":" + port
	}
	p.Timeout, p.Patience = cmp.Or(opts.Timeout, 5*time.Second), cmp.Or(opts.Patience, time.Minute)
	if p.Dial == nil {
		p.Dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", opts.Address)
		}
	}
	return p, nil
}
