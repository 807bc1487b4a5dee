package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/oneport-edge/oneport/certs"
	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/limit"
	"github.com/oneport-edge/oneport/router/upstream"
)

// view is what is in effect, for those that only look: they wait for no reload.
type view struct {
	cfg   *config.Config
	pools []*upstream.Upstream // in the file's order
	ready map[string]func() error
	// tokens are the guards of tokens, for what they have counted.
	tokens []*auth.JWT
	redis  *limit.Shared // nil without Redis
}

// show makes what is in effect the view.
func (e *Edge) show(cfg *config.Config) {
	v := &view{cfg: cfg, ready: map[string]func() error{}}
	for i := range cfg.Upstreams {
		if up := e.pools[poolKey(&cfg.Upstreams[i])]; up != nil {
			v.pools = append(v.pools, up)
		}
	}
	for key, d := range e.doors {
		if j, ok := d.guard.(*auth.JWT); ok {
			v.tokens = append(v.tokens, j)
		}
		if d.shared != nil {
			v.redis = d.shared
		}
		if d.ready != nil {
			kind, _, _ := strings.Cut(key, " ")
			v.ready[kind] = d.ready
		}
	}
	e.seen.Store(v)
}

// pools are the upstreams in effect.
func (a *Admin) pools() (list []*upstream.Upstream) {
	if a.opts.Edge != nil {
		return a.opts.Edge.seen.Load().pools
	}
	for i := range a.opts.Server.Routes {
		if up := a.opts.Server.Routes[i].To; up != nil && !slices.Contains(list, up) {
			list = append(list, up)
		}
	}
	return list
}

// down reports whether no server of an upstream is well, by its health check.
func down(servers []upstream.ServerStats) bool {
	return !slices.ContainsFunc(servers, func(s upstream.ServerStats) bool { return !s.Sick })
}

// checks say whether the port is ready. An upstream that is down makes it red only if all
// are: to take the port out of a load balancer for one of several would take the others out too.
func (a *Admin) checks() []*adminv1.Check {
	serving := &adminv1.Check{Name: "listening", Ok: true}
	draining := &adminv1.Check{Name: "draining", Ok: true}
	select {
	case <-a.opts.Server.Serving():
		if !a.opts.Server.Ready() {
			draining.Ok, draining.Red, draining.Text = false, true, "the process ends"
		}
	default:
		serving.Ok, serving.Red, serving.Text = false, true, "not yet"
	}
	list := []*adminv1.Check{serving, draining}
	if e := a.opts.Edge; e != nil {
		for name, ready := range e.seen.Load().ready {
			c := &adminv1.Check{Name: name, Ok: true}
			if err := ready(); err != nil {
				c.Ok, c.Red, c.Text = false, errors.Is(err, auth.ErrKeysUnavailable), err.Error()
			}
			list = append(list, c)
		}
	}
	var ups []*adminv1.Check
	bad := 0
	for _, up := range a.pools() {
		c := &adminv1.Check{Name: "upstream " + up.String(), Ok: true}
		if servers := up.Servers(); down(servers) {
			c.Ok, c.Text = false, fmt.Sprintf("none of %d servers is well", len(servers))
			bad++
		}
		ups = append(ups, c)
	}
	for _, c := range ups {
		c.Red = bad == len(ups)
	}
	return append(list, ups...)
}

// limits are the bounds of connections, and the limits of callers.
func (a *Admin) limits() *adminv1.ListLimitsResponse {
	st := a.opts.Server.Stats()
	res := &adminv1.ListLimitsResponse{Accepted: st.Conns.Accepted, ConnectionsBound: int64(max(0, a.opts.Server.ConnBounds().Total)), Ended: make(map[string]int64)}
	for _, n := range st.Conns.Open {
		res.Connections += n
	}
	for why, n := range st.Conns.Ended {
		res.Ended[why.String()] = n
	}
	if a.opts.Edge == nil {
		return res
	}
	for name, l := range a.opts.Edge.limits.Stats() {
		res.Limits = append(res.Limits, &adminv1.Limit{
			Name: name, Calls: l.Calls, InFlight: int64(l.InFlight), Waiting: int64(l.Waiting), Keys: int64(l.Keys), Evicted: l.Evicted,
		})
	}
	slices.SortFunc(res.GetLimits(), func(a, b *adminv1.Limit) int { return strings.Compare(a.GetName(), b.GetName()) })
	return res
}

// revocations are those that hold, as the API has them.
func (e *Edge) revocations() (list []*adminv1.Revocation) {
	for _, r := range e.Sessions().Revocations() {
		// A token's claims are what an issuer has signed, and need be no UTF-8; without the
		// whole of a name nothing is lifted, so that it is not made short.
		v := &adminv1.Revocation{Subject: strings.ToValidUTF8(r.Subject, "\uFFFD"), Issuer: strings.ToValidUTF8(r.Issuer, "\uFFFD"), At: timestamppb.New(r.At)}
		if !r.Until.IsZero() {
			v.Until = timestamppb.New(r.Until)
		}
		list = append(list, v)
	}
	return list
}

// routes are those in effect.
func (a *Admin) routes() (list []*adminv1.Route) {
	if a.opts.Edge == nil {
		for i := range a.opts.Server.Routes {
			list = append(list, shownRoute(&a.opts.Server.Routes[i]))
		}
		return list
	}
	cfg := a.opts.Edge.seen.Load().cfg
	hide := redaction{env: cfg.FromEnv()}
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		v := &adminv1.Route{
			Name: r.Name, Grpc: hide.text(r.GRPC), Path: hide.text(r.Path), Websocket: hide.text(r.WebSocket), Hosts: hide.texts(r.Hosts),
			Methods: r.Methods, Redirect: hide.text(r.Redirect), Mirror: r.Mirror, Auth: r.Auth, Limit: r.Limit,
			Passthrough: r.Passthrough, Sni: hide.text(r.SNI), Alpn: r.ALPN,
		}
		if r.To != "" {
			v.To = []*adminv1.Share{{Upstream: r.To, Weight: 1}}
		}
		for _, s := range r.Split {
			v.To = append(v.To, &adminv1.Share{Upstream: s.To, Weight: int32(s.Weight)})
		}
		list = append(list, v)
	}
	return list
}

// shownRoute is a route that no file has.
func shownRoute(r *router.Route) *adminv1.Route {
	v := &adminv1.Route{Name: r.String(), Grpc: r.GRPC, Path: r.Path, Websocket: r.WebSocket, Hosts: r.Hosts, Methods: r.Methods, Redirect: r.Redirect}
	if r.To != nil {
		v.To = []*adminv1.Share{{Upstream: r.To.String(), Weight: 1}}
	}
	return v
}

// upstreams are those in effect.
func (a *Admin) upstreams() (list []*adminv1.Upstream) {
	for _, up := range a.pools() {
		st, servers := up.Stats(), up.Servers()
		v := &adminv1.Upstream{Name: up.String(), Connections: int64(st.Conns), Waiting: int64(st.Waiting), Failed: st.Failed, Down: down(servers)}
		for _, s := range servers {
			v.Servers = append(v.Servers, &adminv1.Server{
				Name: s.Name, Active: s.Active, Calls: s.Calls, Faults: s.Faults, Sick: s.Sick, Ejected: s.Ejected,
			})
		}
		list = append(list, v)
	}
	return list
}

// certificates are those that clients are shown.
func (a *Admin) certificates() (list []*adminv1.Certificate) {
	for _, cert := range certs.Shown(a.opts.Server.Certs) {
		sum := sha256.Sum256(cert.Raw)
		v := &adminv1.Certificate{
			Names: slices.Clone(cert.DNSNames), Subject: cert.Subject.String(), Issuer: cert.Issuer.String(),
			Serial: cert.SerialNumber.Text(16), Fingerprint: hex.EncodeToString(sum[:]),
			NotBefore: timestamppb.New(cert.NotBefore), NotAfter: timestamppb.New(cert.NotAfter),
		}
		for _, ip := range cert.IPAddresses {
			v.Names = append(v.Names, ip.String())
		}
		list = append(list, v)
	}
	return list
}
