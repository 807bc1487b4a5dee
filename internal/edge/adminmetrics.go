package edge

import (
	"github.com/oneport-edge/oneport/router/limit"
	"github.com/oneport-edge/oneport/router/telemetry"
)

// telemetry is what metrics are made of.
func (a *Admin) telemetry() telemetry.Options {
	o := telemetry.Options{
		Server: a.opts.Server, Upstreams: a.pools, Version: a.opts.Version, Commit: a.opts.Commit, Log: a.opts.Log,
	}
	if e := a.opts.Edge; e != nil {
		o.Limits, o.Details, o.Shed = e.limits.Stats, e.details, e.shed()
	}
	return o
}

// shed is the guard of load; nil if there is none.
func (e *Edge) shed() *limit.Shed {
	for _, g := range e.Server.Guards {
		if shed, ok := g.(*limit.Shed); ok {
			return shed
		}
	}
	return nil
}

// details are what a file may have.
func (e *Edge) details() (d telemetry.Details) {
	v := e.seen.Load()
	for _, jwt := range v.tokens {
		st := jwt.Stats()
		d.Tokens = append(d.Tokens, telemetry.Tokens{Guard: "jwt", Admitted: st.Admitted, Remembered: st.Remembered, Refused: st.Refused})
	}
	open := e.open.Stats()
	d.Sessions = &telemetry.Sessions{Open: open.Open, Ended: open.Ended, Refused: open.Refused, Refreshed: open.Moved}
	if v.redis != nil {
		d.Redis = &telemetry.Redis{Up: !v.redis.Down(), Failures: v.redis.Failed()}
	}
	if hub := e.hub.Load(); hub != nil {
		st := hub.Stats()
		d.Broadcast = &telemetry.Broadcast{Up: st.Connected, Clients: st.Clients, Channels: st.Channels, Subscriptions: st.Subscriptions, Slow: st.Slow}
	}
	loads := e.Loads()
	d.Loads = &telemetry.Loads{Good: loads.Good, Failed: loads.Failed, At: loads.At, OK: loads.Err == nil}
	if e.lines != nil {
		st := e.lines.Stats()
		d.Lines = &telemetry.Written{Good: st.Written, Dropped: st.Dropped, Failed: st.Failed}
	}
	if e.exporter != nil {
		st := e.exporter.Stats()
		d.Spans = &telemetry.Written{Good: st.Sent, Dropped: st.Dropped, Failed: st.Failed}
	}
	return d
}
