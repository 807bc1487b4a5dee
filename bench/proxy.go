package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
)

// task is what edges are compared at.
type task struct {
	name  string
	ops   int     // operations of one slice
	most  float64 // what oneport may cost, of the better of the others; 0 if nobody asked
	curve tls.CurveID
	open  opener
}

// h2Bodies is how many bodies of 64 KiB are in flight on each of h2Conns
// connections: together as many as over HTTP/1.1.
const h2Bodies = connections / h2Conns

// short is the message of the WebSockets: 64 B.
const short = `{"type":"chat","from":"alice","text":"the quick brown fox jump"}`

func tasks() []task {
	const unaryPath, grpcType, jsonType = "/oneport.echo.v1.Echo/Unary", "application/grpc", "application/json"
	sink := sunk(int64(len(bigMessage)), crc32.ChecksumIEEE([]byte(bigMessage)))
	return []task{
		{"gRPC, unary, 64 in flight", 2000, 1, tls.X25519, openHTTP2(h2Streams, "POST", unaryPath, grpcType, grpcFrame(), grpcFrame())},
		{"gRPC, unary, 1 in flight", 1000, 1.2, tls.X25519, openUnary(1, message)},
		{"gRPC, ping-pong stream", 4000, 1.2, tls.X25519, openPingPong},
		{"gRPC, unary, 64 KiB", 400, 0, tls.X25519, openUnary(8, bigMessage)},
		{"WebSocket, echo, 64 B", 4000, 0.9, tls.X25519, openWebSocket("/ws", short)},
		{"WebSocket, echo, 64 B, mode: raw", 4000, 0.9, tls.X25519, openWebSocket("/raw", short)},
		{"TLS handshake, X25519", 160, 1.2, tls.X25519, openHandshakes},
		{"TLS handshake, X25519MLKEM768", 160, 0, tls.X25519MLKEM768, openHandshakes},
		{"REST, HTTP/1.1, GET", 2000, 2, tls.X25519, openHTTP1("GET", "/api/hello", "", helloAnswer)},
		{"REST, HTTP/1.1, POST", 2000, 2, tls.X25519, openHTTP1("POST", "/api/echo", message, message)},
		{"REST, HTTP/2, GET", 2000, 2, tls.X25519, openHTTP2(h2Streams, "GET", "/api/hello", jsonType, "", helloAnswer)},
		{"REST, HTTP/2, POST", 2000, 2, tls.X25519, openHTTP2(h2Streams, "POST", "/api/echo", jsonType, message, message)},
		{"64 KiB down, HTTP/1.1", 400, 2, tls.X25519, openHTTP1("GET", "/api/big", "", bigMessage)},
		{"64 KiB down, HTTP/2", 400, 2, tls.X25519, openHTTP2(h2Bodies, "GET", "/api/big", jsonType, "", bigMessage)},
		{"64 KiB up, HTTP/1.1", 400, 2, tls.X25519, openHTTP1("POST", "/api/sink", bigMessage, sink)},
		{"64 KiB up, HTTP/2", 400, 2, tls.X25519, openUploads("/api/sink", bigMessage, sink)},
	}
}

// spread is a median, and what the rounds were between.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(x []float64) spread { return spread{median(x), slices.Min(x), slices.Max(x)} }

// figure is what came out for the edges.
type figure struct {
	Name   string            `json:"name"`
	Edges  map[string]spread `json:"edges"`  // microseconds of CPU per operation, or KiB per connection
	Better string            `json:"better"` // which of the others oneport is compared with; "" if none can do it
	Ratio  spread            `json:"ratio"`  // oneport to Better, round by round
	Most   float64           `json:"most"`   // what the median, or for memory oneport's own, must not exceed; 0 if nobody asked
	Met    bool              `json:"met"`
	Rounds int               `json:"rounds"`
	Each   int               `json:"each"`            // operations of each edge in each round, or connections
	Err    string            `json:"error,omitempty"` // why there are no figures
}

// proxied is how the edges compare.
type proxied struct {
	Versions []string  `json:"versions"`
	CPU      []*figure `json:"cpu"`
	Memory   []*figure `json:"memory"`
}

// edges compares the edges. A task that failed has its error for figures; it is
// also in the error, which comes when all is done.
func (h *house) edges(ctx context.Context, o *options) (*proxied, error) {
	versions, err := h.findEdges(ctx, o.oneport)
	if err != nil {
		return nil, err
	}
	p := &proxied{Versions: versions}
	var failed []error
	keep := func(list *[]*figure, f *figure, err error) {
		if err != nil {
			f.Err = err.Error()
			failed = append(failed, fmt.Errorf("%s: %w", f.Name, err))
		}
		*list = append(*list, f)
	}
	for _, t := range tasks() {
		if !strings.Contains(t.name, o.row) {
			continue
		}
		fmt.Fprintf(h.stderr, "%s: %d rounds\n", t.name, o.rounds)
		f, err := h.contest(ctx, t, o)
		keep(&p.CPU, f, err)
	}
	for _, k := range idleEdges() {
		if !strings.Contains(k.name, o.row) {
			continue
		}
		fmt.Fprintf(h.stderr, "%s: %d connections\n", k.name, edgeSockets)
		f, err := h.edgeMemory(ctx, k, min(o.rounds, edgeMemoryRounds))
		keep(&p.Memory, f, err)
	}
	return p, errors.Join(failed...)
}

// contest runs all rounds of one task, and one before that does not count.
func (h *house) contest(ctx context.Context, t task, o *options) (*figure, error) {
	f := &figure{Name: t.name, Most: t.most, Rounds: o.rounds, Each: t.ops * slicesPerRound}
	profile, err := o.profileOf(t.name)
	if err != nil {
		return f, err
	}
	var names []string
	for _, e := range edges() {
		if t.curve == tls.X25519 || h.hybrid[e.name] {
			names = append(names, e.name)
		}
	}
	h.curves = []tls.CurveID{t.curve}
	defer func() { h.curves = nil }()
	all := map[string][]float64{}
	for i := range o.rounds + 1 {
		used, err := h.round(ctx, names, slicesPerRound, t.ops, t.open, profile)
		if err != nil {
			return f, err
		}
		for k, ns := range used {
			if i > 0 {
				all[names[k]] = append(all[names[k]], float64(ns)/1000/float64(f.Each))
			}
		}
	}
	f.judge(all)
	f.Met = f.Most == 0 || f.Ratio.Median <= f.Most
	return f, nil
}

// judge puts the rounds together.
func (f *figure) judge(all map[string][]float64) {
	f.Edges = map[string]spread{}
	for name, x := range all {
		f.Edges[name] = spreadOf(x)
		if name != onOneport && (f.Better == "" || f.Edges[name].Median < f.Edges[f.Better].Median) {
			f.Better = name
		}
	}
	if f.Better == "" {
		return
	}
	var r []float64
	for i, own := range all[onOneport] {
		r = append(r, own/all[f.Better][i])
	}
	f.Ratio = spreadOf(r)
}

const (
	edgeSockets      = 2000
	edgeMemoryRounds = 3
	// edgeRest is how long idle connections stand before memory is looked at:
	// longer than what oneport needs to the first ping, 25 s.
	edgeRest = 30 * time.Second
)

// idleEdges are the idle connections, and how many KiB each may hold.
func idleEdges() []idlers {
	return []idlers{{"idle WebSocket", "", 40, edgeRest, openSocket, idleSocket}}
}

// edgeMemory opens idle connections to all edges at once. A program that is not
// ours gives no memory back when it is asked: what counts is what is resident
// after a while, garbage included.
func (h *house) edgeMemory(ctx context.Context, k idlers, rounds int) (*figure, error) {
	f := &figure{Name: k.name, Most: k.most, Rounds: rounds, Each: edgeSockets}
	h.curves = []tls.CurveID{tls.X25519}
	defer func() { h.curves = nil }()
	all := map[string][]float64{}
	for range rounds {
		used, err := h.edgeMemoryRound(ctx, k)
		if err != nil {
			return f, err
		}
		for name, bytes := range used {
			all[name] = append(all[name], bytes/1024)
		}
	}
	f.judge(all)
	f.Met = f.Edges[onOneport].Median <= f.Most
	return f, nil
}

// edgeMemoryRound is by how many bytes each edge grew for each connection.
func (h *house) edgeMemoryRound(ctx context.Context, k idlers) (map[string]float64, error) {
	used := map[string]float64{}
	var crowds []*crowd
	defer func() {
		for _, c := range crowds {
			c.close()
			c.server.stop()
		}
	}()
	for _, e := range edges() {
		s, err := h.start(ctx, e.name)
		if err != nil {
			return nil, err
		}
		all := &crowd{idlers: k, house: h, server: s}
		crowds = append(crowds, all)
		warm := &crowd{idlers: k, house: h, server: s}
		err = warm.open(ctx, warmUps)
		warm.close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		time.Sleep(calm)
		before, err := s.ask(askMemory)
		if err != nil {
			return nil, err
		}
		if err := all.open(ctx, edgeSockets); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		used[e.name] = -float64(before.RSS) / edgeSockets
	}
	time.Sleep(k.rest)
	for _, c := range crowds {
		after, err := c.server.ask(askMemory)
		if err != nil {
			return nil, err
		}
		if lost := c.lost.Load(); lost > 0 {
			return nil, fmt.Errorf("%s: %d of %d connections were lost", c.server.name, lost, edgeSockets)
		}
		used[c.server.name] += float64(after.RSS) / edgeSockets
	}
	return used, nil
}
