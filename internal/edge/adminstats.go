package edge

import (
	"runtime/metrics"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// stats are the counts that a page looks at each second.
func (a *Admin) stats() *adminv1.Stats {
	st := a.opts.Server.Stats()
	res := &adminv1.Stats{
		At: timestamppb.Now(), Started: timestamppb.New(a.started), Version: a.opts.Version,
		Protocols: protocolStats(a.opts.Server.Meter, st.Traffic), ConnectionsByState: map[string]uint64{},
		BytesRead: uint64(max(0, st.Conns.BytesIn)), BytesWritten: uint64(max(0, st.Conns.BytesOut)),
		Draining: a.ending(), CpuSeconds: cpuTime().Seconds(),
	}
	for _, s := range protocols.States() {
		if s != protocols.StateClosed {
			res.ConnectionsByState[s.String()] = uint64(max(0, st.Conns.Open[s]))
		}
	}
	for why, n := range st.Conns.Ended {
		res.ConnectionOutcomes = append(res.ConnectionOutcomes, &adminv1.ReasonCount{What: "connections", Reason: why.String(), Count: uint64(n)})
	}
	for why, n := range st.Sessions.Refused {
		res.Refusals = append(res.Refusals, &adminv1.ReasonCount{What: "websocket", Reason: why, Count: uint64(n)})
	}
	res.Refusals = append(res.GetRefusals(), a.refusals()...)
	slices.SortFunc(res.GetConnectionOutcomes(), byReason)
	slices.SortFunc(res.GetRefusals(), byReason)
	res.MemoryBytes, res.Goroutines = runtimeStats()
	if e := a.opts.Edge; e != nil {
		loads := e.Loads()
		res.LastReload = &adminv1.Reload{At: timestamppb.New(loads.At), Ok: loads.Err == nil}
		if loads.Err != nil {
			res.LastReload.Text = loads.Err.Error()
		}
	}
	return res
}

func byReason(a, b *adminv1.ReasonCount) int {
	return strings.Compare(a.GetWhat()+" "+a.GetReason(), b.GetWhat()+" "+b.GetReason())
}

// ending reports whether the port drains.
func (a *Admin) ending() bool {
	select {
	case <-a.opts.Server.Serving():
		return !a.opts.Server.Ready()
	default:
		return false
	}
}

// refusals are those of calls by reason, and what guards say of theirs.
func (a *Admin) refusals() (list []*adminv1.ReasonCount) {
	add := func(what, reason string, n uint64) {
		if n > 0 {
			list = append(list, &adminv1.ReasonCount{What: what, Reason: reason, Count: n})
		}
	}
	calls := map[protocols.Reason]uint64{}
	for _, st := range a.opts.Server.Meter.Stats() {
		for why, n := range st.Refused {
			calls[why] += n
		}
	}
	for why, n := range calls {
		add("calls", why.String(), n)
	}
	e := a.opts.Edge
	if e == nil {
		return list
	}
	for name, l := range e.limits.Stats() {
		for what, n := range l.Calls {
			if what != "admitted" {
				add("limit "+name, what, n)
			}
		}
	}
	for _, jwt := range e.seen.Load().tokens {
		for why, n := range jwt.Stats().Refused {
			add("auth.jwt", why, n)
		}
	}
	if shed := e.shed(); shed != nil {
		_, memory, latency := shed.Stats()
		add("shed", "memory", memory)
		add("shed", "latency", latency)
	}
	add("sessions", "revoked", e.open.Stats().Refused)
	return list
}

// protocolStats are those of all three protocols.
func protocolStats(m *protocols.Meter, tr ws.Traffic) []*adminv1.ProtocolStats {
	list := make([]*adminv1.ProtocolStats, 0, 3)
	for p := protocols.HTTP; p <= protocols.WebSocket; p++ {
		v := &adminv1.ProtocolStats{Protocol: p.String(), InFlight: uint64(m.InFlight(p))}
		bounds := p.Bounds()
		if p == protocols.WebSocket {
			bounds = ws.RTTBounds()
			v.MessagesIn, v.MessagesOut, v.BucketCounts = tr.In.Count, tr.Out.Count, tr.RTTs
		} else {
			v.BucketCounts = make([]uint64, len(bounds)+1)
		}
		for _, b := range bounds {
			v.BucketBounds = append(v.BucketBounds, b.Seconds())
		}
		list = append(list, v)
	}
	for _, st := range m.Stats() {
		v := list[st.Protocol]
		v.Calls += st.Calls
		v.Errors += st.Failed
		if st.Protocol != protocols.WebSocket {
			for i, n := range st.Buckets {
				v.BucketCounts[i] += n
			}
		}
	}
	return list
}

// runtimeStats is what the Go runtime says of itself.
func runtimeStats() (memory uint64, goroutines uint32) {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64(), uint32(samples[2].Value.Uint64())
}
