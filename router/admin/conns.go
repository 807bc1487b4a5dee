package admin

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
)

// Bounds of answers.
const (
	defaultConns = 100
	mostConns    = 1000
	mostCalls    = 20  // of a connection
	mostText     = 256 // bytes of what a client has chosen

	mostALPN      = 10
	mostWatching  = 16
	leastInterval = 500 * time.Millisecond
	mostInterval  = time.Minute
	watchInterval = 2 * time.Second
)

// conn is a connection with the calls that are open on it.
type conn struct {
	*protocols.Conn
	in, out int64
	calls   []*protocols.Call
}

// ListConnections implements adminv1.AdminServer.
func (s *Service) ListConnections(_ context.Context, req *adminv1.ListConnectionsRequest) (*adminv1.ListConnectionsResponse, error) {
	conns, err := s.find(req.GetFilter(), req.GetSort())
	if err != nil {
		return nil, err
	}
	first := 0
	if page := req.GetPage(); page != "" {
		if first, err = strconv.Atoi(page); err != nil || first < 0 {
			return nil, status.Error(codes.InvalidArgument, "page: want next_page of an answer")
		}
	}
	limit, err := limitOf(req.GetLimit())
	if err != nil {
		return nil, err
	}
	first = min(first, len(conns))
	last := min(first+limit, len(conns))
	res := &adminv1.ListConnectionsResponse{Connections: shown(conns[first:last]), Total: int32(len(conns))}
	if last < len(conns) {
		res.NextPage = strconv.Itoa(last)
	}
	return res, nil
}

func limitOf(n int32) (int, error) {
	if n < 0 || n > mostConns {
		return 0, status.Errorf(codes.InvalidArgument, "limit: want at most %d, or 0 for %d", mostConns, defaultConns)
	}
	return int(cmp.Or(n, defaultConns)), nil
}

// WatchConnections implements adminv1.AdminServer.
func (s *Service) WatchConnections(req *adminv1.WatchConnectionsRequest, to grpc.ServerStreamingServer[adminv1.WatchConnectionsResponse]) error {
	return s.watch(to.Context(), req, to.Send)
}

// sendFor is how long a watcher may take nothing: one that answers pings could keep its place for ever.
const sendFor = 10 * time.Second

// watch sends the list again and again until ctx ends, or the port.
func (s *Service) watch(ctx context.Context, req *adminv1.WatchConnectionsRequest, send func(*adminv1.WatchConnectionsResponse) error) error {
	every := watchInterval
	if d := req.GetEvery(); d != nil {
		if every = d.AsDuration(); d.CheckValid() != nil || every < leastInterval || every > mostInterval {
			return status.Errorf(codes.InvalidArgument, "every: want from %v to %v", leastInterval, mostInterval)
		}
	}
	limit, err := limitOf(req.GetLimit())
	if err != nil {
		return err
	}
	if s.watching.Add(1) > mostWatching {
		s.watching.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "%d watch already", mostWatching)
	}
	defer s.watching.Add(-1)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		conns, err := s.find(req.GetFilter(), req.GetSort())
		if err != nil {
			return err
		}
		res := &adminv1.WatchConnectionsResponse{Connections: shown(conns[:min(limit, len(conns))]), Total: int32(len(conns))}
		late := time.AfterFunc(sendFor, func() {
			if call := protocols.CallFrom(ctx); call != nil {
				call.End(&protocols.Refusal{Reason: protocols.ReasonOverloaded, Text: "slow consumer"})
			}
		})
		err = send(res)
		late.Stop()
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-s.opts.Ending:
			return nil
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// orders are how connections may be sorted, by their names.
var orders = map[string]func(a, b *conn) int{
	"":          func(*conn, *conn) int { return 0 },
	"accepted":  func(*conn, *conn) int { return 0 },
	"newest":    func(a, b *conn) int { return b.Accepted.Compare(a.Accepted) },
	"bytes_in":  func(a, b *conn) int { return cmp.Compare(b.in, a.in) },
	"bytes_out": func(a, b *conn) int { return cmp.Compare(b.out, a.out) },
	"calls":     func(a, b *conn) int { return cmp.Compare(len(b.calls), len(a.calls)) },
	"remote":    func(a, b *conn) int { return a.Remote.Compare(b.Remote) },
}

// find gives the connections that fit, sorted.
func (s *Service) find(f *adminv1.Filter, order string) ([]*conn, error) {
	compare, ok := orders[order]
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "sort %q: want accepted, newest, bytes_in, bytes_out, calls or remote", order)
	}
	fits, err := compile(f)
	if err != nil {
		return nil, err
	}
	calls := make(map[string][]*protocols.Call)
	for _, c := range s.opts.Calls.List() {
		calls[c.Conn.ID] = append(calls[c.Conn.ID], c)
	}
	var list []*conn
	for _, facts := range s.opts.Port.Conns() {
		c := &conn{Conn: facts, calls: calls[facts.ID]}
		if c.State() == protocols.StateClosed || !fits(c) {
			continue
		}
		c.in, c.out = facts.Bytes() // once: an order that changes while it sorts is none
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *conn) int {
		return cmp.Or(compare(a, b), a.Accepted.Compare(b.Accepted), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// compile makes a question of a filter.
func compile(f *adminv1.Filter) (func(*conn) bool, error) {
	var from netip.Prefix
	if s := f.GetRemote(); s != "" {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "remote %q: want an address or a range, as 192.0.2.0/24", s)
		}
		from = p
	}
	if p := f.GetProtocol(); p != "" && p != protocols.HTTP.String() && p != protocols.GRPC.String() && p != protocols.WebSocket.String() {
		return nil, status.Errorf(codes.InvalidArgument, "protocol %q: want http, grpc or websocket", p)
	}
	if s := f.GetState(); s != "" && !slices.ContainsFunc(protocols.States(), func(known protocols.State) bool { return known.String() == s }) {
		return nil, status.Errorf(codes.InvalidArgument, "state %q: want opening, handshake, idle, active, upgraded or tunnel", s)
	}
	return func(c *conn) bool {
		return (f.GetState() == "" || c.State().String() == f.GetState()) &&
			(!from.IsValid() || from.Contains(c.Remote.Addr().Unmap())) &&
			some(c.calls, f.GetProtocol(), func(call *protocols.Call) string { return call.Protocol.String() }) &&
			some(c.calls, f.GetIdentity(), subject) &&
			some(c.calls, f.GetRoute(), func(call *protocols.Call) string { return destination(call).Route }) &&
			some(c.calls, f.GetUpstream(), func(call *protocols.Call) string { return destination(call).Upstream })
	}, nil
}

// some reports whether one of the calls has what is wanted.
func some(calls []*protocols.Call, want string, of func(*protocols.Call) string) bool {
	return want == "" || slices.ContainsFunc(calls, func(c *protocols.Call) bool { return of(c) == want })
}

func subject(call *protocols.Call) string {
	if id := call.Identity(); id != nil {
		return id.Subject
	}
	return ""
}

func destination(call *protocols.Call) *protocols.Destination {
	if to := call.Destination(); to != nil {
		return to
	}
	return new(protocols.Destination)
}

// shown are connections as the API has them.
func shown(conns []*conn) []*adminv1.Connection {
	list := make([]*adminv1.Connection, len(conns))
	for i, c := range conns {
		v := &adminv1.Connection{
			Id: c.ID, Remote: addr(c.Remote), Local: addr(c.Local), Listener: c.Listener, Kind: c.Kind.String(), State: c.State().String(),
			Accepted: stamp(c.Accepted), Since: stamp(c.Since()), BytesIn: c.in, BytesOut: c.out, Sni: text(c.SNI),
			Tls: shownTLS(c.Conn), OpenCalls: int32(len(c.calls)),
		}
		if c.Peer != c.Remote {
			v.Peer = addr(c.Peer)
		}
		slices.SortFunc(c.calls, func(a, b *protocols.Call) int { return a.Started.Compare(b.Started) })
		for _, call := range c.calls[:min(len(c.calls), mostCalls)] {
			v.Calls = append(v.Calls, shownCall(call))
		}
		list[i] = v
	}
	return list
}

func shownTLS(c *protocols.Conn) *adminv1.TLS {
	if c.TLS == nil {
		return nil
	}
	v := &adminv1.TLS{
		Version: tls.VersionName(c.TLS.Version), Cipher: tls.CipherSuiteName(c.TLS.CipherSuite),
		Alpn: c.TLS.NegotiatedProtocol,
	}
	for _, p := range c.OfferedALPN[:min(len(c.OfferedALPN), mostALPN)] {
		v.OfferedAlpn = append(v.OfferedAlpn, text(p))
	}
	if certs := c.TLS.PeerCertificates; len(certs) > 0 {
		v.ClientSubject = text(certs[0].Subject.String())
	}
	return v
}

func shownCall(c *protocols.Call) *adminv1.Call {
	to := destination(c)
	v := &adminv1.Call{
		Id: c.RequestID(), Protocol: c.Protocol.String(), Method: text(c.Method), Host: text(c.Host), Path: text(c.Path),
		Route: to.Route, Upstream: to.Upstream, Started: stamp(c.Started),
	}
	if id := c.Identity(); id != nil {
		v.Identity = &adminv1.Identity{Subject: text(id.Subject), Issuer: text(id.Issuer), By: id.By, Expires: stamp(id.Expires)}
	}
	return v
}

// text is what a client has chosen, as a message takes it: valid UTF-8, and bounded.
func text(s string) string {
	if len(s) <= mostText && utf8.ValidString(s) {
		return s
	}
	b := make([]byte, 0, mostText+3)
	for _, r := range s { // what is not valid becomes U+FFFD
		if len(b)+utf8.RuneLen(r) > mostText {
			return string(append(b, "..."...))
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

// stamp is a time; nil for none.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func addr(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
