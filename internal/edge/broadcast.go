package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/broadcast"
	"github.com/oneport-edge/oneport/router/config"
)

// hubKey is what makes a broadcast another one, whose subscribers have to come back. All
// else is updated in place.
type hubKey struct {
	MessageSize int64
	Channels    int
	Queue       int64
	Gather      string
	Redis       *config.Redis
}

// openHub makes the broadcast of a file, or has the one that there is updated once the file is
// in effect.
func (d *doors) openHub() {
	b := d.cfg.Broadcast
	if b == nil {
		return
	}
	fail := func(err error) {
		d.errs = append(d.errs, fmt.Errorf("%s:%d:%d: broadcast: %w", d.cfg.File, b.Pos.Line, b.Pos.Col, err))
	}
	tokens, err := readTokens(b.TokenFile)
	if err != nil {
		fail(fmt.Errorf("token_file: %w", err))
		return
	}
	list := namespacesOf(b)
	key := &hubKey{b.MessageSize, b.Channels, b.Queue, b.Gather.String(), d.cfg.Redis}
	var files []string
	if d.cfg.Redis != nil {
		files = append(files, d.cfg.Redis.PasswordFile)
	}
	d.hub = d.open("broadcast", b.Pos, key, func(made *door) (err error) {
		o := broadcast.Options{
			Namespaces: list, Tokens: tokens, MessageSize: int(b.MessageSize), Channels: b.Channels, Queue: int(b.Queue),
			Gather: b.Gather, Log: d.e.log,
		}
		if d.cfg.Redis != nil {
			o.Redis = new(broadcast.Redis)
			if o.Redis.Options, err = redisOptions(d.cfg.Redis); err == nil {
				_, err = o.Redis.Parse()
			}
			if err != nil {
				return err
			}
			if d.e.stop == nil { // a check reaches for nobody
				o.Redis = nil
			}
		}
		made.hub, err = broadcast.New(o)
		return err
	}, files...).hub
	if d.hub == nil {
		return
	}
	if err := broadcast.Check(list, tokens); err != nil {
		fail(err)
		return
	}
	d.then = append(d.then, func() { _ = d.hub.Update(list, tokens) }) // it has been checked
}

// errNoTokens is of a file that lets nobody in.
var errNoTokens = errors.New("no token in it")

// readTokens reads a token from each line that is not empty and no comment.
func readTokens(file string) (list []string, err error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	if len(list) == 0 {
		return nil, errNoTokens
	}
	return list, nil
}

func namespacesOf(b *config.Broadcast) (list []broadcast.Namespace) {
	for i := range b.Namespaces {
		n := &b.Namespaces[i]
		list = append(list, broadcast.Namespace{
			Name: n.Name, HistorySize: n.HistorySize, HistoryTTL: n.HistoryTTL, Recovery: n.Recovery, Presence: n.Presence,
			JoinLeave: n.JoinLeave, Publish: rulesOf(n.Publish), Subscribe: rulesOf(n.Subscribe),
		})
	}
	return list
}

// rulesOf are rules as config has checked them.
func rulesOf(list []string) (rules []broadcast.Rule) {
	for _, s := range list {
		switch s {
		case "anyone":
			rules = append(rules, broadcast.Anyone)
		case "authenticated":
			rules = append(rules, broadcast.Authenticated)
		case "named":
			rules = append(rules, broadcast.Named)
		default:
			name, value, has := strings.Cut(strings.TrimPrefix(s, "claim:"), "=")
			switch {
			case !strings.HasPrefix(s, "claim:"):
				rules = append(rules, broadcast.Nobody)
			case has:
				rules = append(rules, broadcast.Claim(name, value))
			default:
				rules = append(rules, broadcast.Claim(name))
			}
		}
	}
	return rules
}

// answer has a hub answer a route.
func answer(route *router.Route, hub *broadcast.Hub, b *config.Broadcast) {
	if route.WebSocket == "" {
		route.Handler = hub.Stream()
		return
	}
	route.Session = hub.Socket
	route.SessionOptions = ws.Options{
		Subprotocols: broadcast.Subprotocols(), Origins: b.Origins, SendQueue: int(b.Queue), ReadLimit: hub.ReadLimit(),
	}
}

// publishersAt is where publishers are served; "" if nobody is.
func publishersAt(cfg *config.Config) string {
	if b := cfg.Broadcast; b != nil && b.TokenFile != "" {
		return b.Listen
	}
	return ""
}

// publishers makes the server of those who publish. It serves whatever broadcast is in effect.
func (e *Edge) publishers(cfg *config.Config) *router.Server {
	at := publishersAt(cfg)
	if at == "" {
		return nil
	}
	api := http.NewServeMux()
	api.HandleFunc("/broadcast/", func(w http.ResponseWriter, r *http.Request) {
		if hub := e.hub.Load(); hub != nil {
			hub.API().ServeHTTP(w, r)
			return
		}
		http.Error(w, "there is no broadcast", http.StatusServiceUnavailable)
	})
	s := &router.Server{
		Listeners: []router.Listener{{Addr: at, Plaintext: true}}, HTTP: api, Log: e.log.With("listener", "broadcast"),
		Drain: router.Drain{Timeout: cfg.Drain.Timeout},
	}
	broadcast.Register(s, e.hub.Load)
	return s
}

// Open begins to serve publishers, until Close. It returns once their address is open.
func (e *Edge) Open(ctx context.Context) error {
	if e.Publishers == nil {
		return nil
	}
	at := &e.Publishers.Listeners[0]
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at.Addr)
	if err != nil {
		return fmt.Errorf("broadcast.listen: %w", err)
	}
	at.Listener = ln
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.work.Go(func() {
		<-e.stop
		cancel()
	})
	e.work.Go(func() {
		if err := e.Publishers.ListenAndServe(ctx); err != nil {
			e.log.Error("publishers are not served", "err", err)
		}
	})
	return nil
}

// drainHub ends the streams of the broadcast when the server drains.
func (e *Edge) drainHub() {
	select {
	case <-e.Server.Draining():
		if hub := e.hub.Load(); hub != nil {
			hub.Drain()
		}
	case <-e.stop:
	}
}
