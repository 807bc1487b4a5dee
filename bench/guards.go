package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/router/auth"
)

// The edges whose guards are compared: oneport, with a file each.
const (
	onBare    = "unguarded"
	onGuarded = "guarded"
	// The same without TLS: a handshake's 600 us would hide what guards cost a WebSocket's.
	onBarePlain    = "unguarded, plaintext"
	onGuardedPlain = "guarded, plaintext"
)

func isOneport(name string) bool {
	return name == onOneport || name == onBare || name == onGuarded || name == onQuiet || name == onWatched
}

func guardEdges() (list []program) {
	for _, e := range []struct {
		name, listen, guards, more string
	}{
		{onBare, withTLS, "", ""},
		{onGuarded, withTLS, guarded, guards},
		{onBarePlain, withoutTLS, "", ""},
		{onGuardedPlain, withoutTLS, guarded, guards},
	} {
		config := strings.ReplaceAll(e.listen+guardsConfig, "GUARDS", e.guards) + e.more
		list = append(list, program{e.name, config, []string{"serve", "-c"}, []string{"check", "-c"}, []string{"version"}})
	}
	return list
}

const (
	withTLS = `listen: "{{.Addr}}"
tls:
  certificates: [{ cert: server.crt, key: server.key }]
`
	withoutTLS = `listen: [{ address: "{{.Addr}}", tls: off }]
`
	guardsConfig = `upstreams:
  greeter: { servers: ["grpc://{{.Greeter}}"] }
  app:     { servers: ["http://{{.App}}"] }
routes:
  - { grpc: "*", to: greeterGUARDS }
  - { websocket: /ws, to: appGUARDS }
  - { path: /, to: appGUARDS }
log: { level: error, access: false }
`
	guarded = `, auth: jwt, limit: api`
	guards  = `auth:
  jwt: { issuer: bench, audience: edge, keys: issuer.pem }
limits:
  named:
    api: { rate: 1000000/s, per: identity }
`
)

// guardTurns is how often the processes of a round take turns. What is looked for is a fiftieth of what
// an operation costs, so that turns must be shorter than what else the machine does.
const guardTurns = 24

// mostAdded is what guards may cost, in microseconds for an operation.
const mostAdded = 3

// guardTask is what guards are asked at.
type guardTask struct {
	name          string
	ops           int
	bare, guarded string
	open          opener
}

func guardTasks() []guardTask {
	const unaryPath, grpcType, jsonType = "/oneport.echo.v1.Echo/Unary", "application/grpc", "application/json"
	return []guardTask{
		{"REST, HTTP/1.1, GET", 600, onBare, onGuarded, openHTTP1("GET", "/api/hello", "", helloAnswer)},
		{"REST, HTTP/2, GET", 1000, onBare, onGuarded, openHTTP2(h2Streams, "GET", "/api/hello", jsonType, "", helloAnswer)},
		{"gRPC, unary, 64 in flight", 2000, onBare, onGuarded, openHTTP2(h2Streams, "POST", unaryPath, grpcType, grpcFrame(), grpcFrame())},
		{"gRPC, unary, 1 in flight", 400, onBare, onGuarded, openUnary(1, message)},
		{"WebSocket, handshake and close, plaintext", 150, onBarePlain, onGuardedPlain, openUpgrades},
		{"WebSocket, echo, 64 B", 1000, onBare, onGuarded, openWebSocket("/ws", short)},
	}
}

// surcharge is what guards add to an operation.
type surcharge struct {
	Name    string   `json:"name"`
	Without spread   `json:"without_us"` // microseconds of CPU per operation
	With    spread   `json:"with_us"`
	Added   interval `json:"added_us"`   // of the rounds' differences
	Control interval `json:"control_us"` // what a second process without guards adds to the first
	Most    float64  `json:"most_us"`    // what the median of Added must not exceed
	Met     bool     `json:"met"`
	Rounds  int      `json:"rounds"`
	Each    int      `json:"each"` // operations of each process in each round
}

// guards compares the edge with and without guards.
func (h *house) guards(ctx context.Context, o *options) (list []*surcharge, err error) {
	binary, err := h.oneport(ctx, o.oneport)
	if err != nil {
		return nil, err
	}
	if err := h.issue(); err != nil {
		return nil, err
	}
	for _, e := range guardEdges() {
		h.programs[e.name] = binary
		if err := h.try(ctx, e); err != nil {
			return nil, err
		}
	}
	defer func() { h.token, h.curves = "", nil }()
	h.curves = []tls.CurveID{tls.X25519}
	var failed []error
	for _, t := range guardTasks() {
		if !strings.Contains(t.name, o.row) {
			continue
		}
		fmt.Fprintf(h.stderr, "%s: %d rounds\n", t.name, o.rounds)
		s, err := h.surcharge(ctx, t, o)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", t.name, err))
			continue
		}
		list = append(list, s)
	}
	return list, errors.Join(failed...)
}

// surcharge runs all rounds of one task, and one before that does not count.
func (h *house) surcharge(ctx context.Context, t guardTask, o *options) (*surcharge, error) {
	var profile string
	if t.bare == onBare { // only that runs in a process of the bench
		var err error
		if profile, err = o.profileOf(t.name); err != nil {
			return nil, err
		}
	}
	names := []string{t.bare, t.guarded, t.bare}
	var cpu [3][]float64
	var added, control []float64
	for i := range o.rounds + 1 {
		used, err := h.round(ctx, names, guardTurns, t.ops, t.open, profile)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			continue
		}
		var us [3]float64
		for k, ns := range used {
			us[k] = float64(ns) / 1000 / float64(t.ops*guardTurns)
			cpu[k] = append(cpu[k], us[k])
		}
		added, control = append(added, us[1]-us[0]), append(control, us[2]-us[0])
	}
	s := &surcharge{
		Name: t.name, Without: spreadOf(cpu[0]), With: spreadOf(cpu[1]), Added: bootstrap(added), Control: bootstrap(control),
		Most: mostAdded, Rounds: o.rounds, Each: t.ops * guardTurns,
	}
	s.Met = s.Added.Median <= s.Most
	return s, nil
}

// issue makes the key that tokens are checked with, and the token that clients bring.
func (h *house) issue() error {
	key, err := auth.GenerateKey("ES256")
	if err != nil {
		return err
	}
	mint, err := auth.NewMint(key, "")
	if err != nil {
		return err
	}
	pem, err := mint.PublicPEM()
	if err != nil {
		return err
	}
	now := time.Now()
	h.token, err = mint.Sign(map[string]any{
		"iss": "bench", "aud": "edge", "sub": "2f1c9a4e-7d61-4b0e-9a35-5d1f0f3b8c77", "scope": "read write", "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.dir, "issuer.pem"), pem, 0o600)
}

// authorization is the value of that field.
func (h *house) authorization() string {
	if h.token == "" {
		return "Bearer 0123456789abcdef"
	}
	return "Bearer " + h.token
}

// authorized is that field for a WebSocket's handshake, which has none if nobody looks.
func (h *house) authorized() string {
	if h.token == "" {
		return ""
	}
	return "Authorization: " + h.authorization() + "\r\n"
}

// upgrades opens WebSockets without TLS, one after the other, and ends each at once.
type upgrades struct {
	ctx    context.Context //nolint:containedctx // it ends with the load
	addr   string
	fields string
}

func openUpgrades(ctx context.Context, h *house, addr string) (load, error) {
	return openClients(handshakers, func() (client, error) { return &upgrades{ctx, addr, h.authorized()}, nil })
}

func (u *upgrades) do(n int) error {
	for range n {
		c, err := new(net.Dialer).DialContext(u.ctx, "tcp", u.addr)
		if err != nil {
			return err
		}
		err = u.one(c)
		_ = c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// one says hello and, in a close frame, goodbye, and reads to the end.
func (u *upgrades) one(c net.Conn) error {
	r, err := upgrade(c, "/ws", u.fields)
	if err != nil {
		return err
	}
	if _, err := c.Write(frameOf(finClose, "\x03\xe8")); err != nil { // 1000
		return err
	}
	return closed(r)
}

// closed reads a close frame and the end behind it.
func closed(r *bufio.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil && string(b) != string([]byte{finClose, 2, 0x03, 0xe8}) {
		err = &answerError{string(b), "a close frame"}
	}
	return err
}

func (u *upgrades) close() {}

// surcharges writes a row for each.
func surcharges(b *strings.Builder, list []*surcharge) {
	b.WriteString("\nCPU of oneport serve per operation, without guards and with JWT (remembered) and a rate limit, median of the rounds (least - most); what that adds, and what a second process without guards does, with 95 % intervals:\n\n")
	rows := [][]string{{"", "without", "with", "added", "95 %", "control", "95 %", "asked", ""}}
	for _, s := range list {
		rows = append(rows, []string{
			s.Name, us(s.Without), us(s.With),
			fmt.Sprintf("%.2f us", s.Added.Median), fmt.Sprintf("%.2f - %.2f", s.Added.Low, s.Added.High),
			fmt.Sprintf("%.2f us", s.Control.Median), fmt.Sprintf("%.2f - %.2f", s.Control.Low, s.Control.High),
			fmt.Sprintf("<= %.0f us", s.Most), verdict(s.Met),
		})
	}
	writeRows(b, rows)
	fmt.Fprintf(b, "\nRounds: %d; operations per round and process: ", list[0].Rounds)
	for i, s := range list {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(b, "%s %d", s.Name, s.Each)
	}
	b.WriteString(".\n")
	if list[0].Rounds < leastRounds {
		fmt.Fprintf(b, "That is too few to be recorded: %d at least.\n", leastRounds)
	}
}

func us(s spread) string { return fmt.Sprintf("%.1f us (%.1f - %.1f)", s.Median, s.Min, s.Max) }
