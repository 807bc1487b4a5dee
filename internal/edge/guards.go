package edge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/auth"
	"github.com/oneport-edge/oneport/router/auth/extauthz"
	"github.com/oneport-edge/oneport/router/broadcast"
	"github.com/oneport-edge/oneport/router/config"
	"github.com/oneport-edge/oneport/router/limit"
	"github.com/oneport-edge/oneport/router/redisstore"
)

// door is a guard of a file, or what guards need, with what it holds open. Those that a
// reload does not change stay as they are.
type door struct {
	guard  protocols.Guard
	shared *limit.Shared
	hub    *broadcast.Hub
	keys   *auth.APIKeys
	sum    [sha256.Size]byte // of the file of keys
	close  func()            // may be nil
	ready  func() error      // may be nil
}

// doors are those of one file.
type doors struct {
	e     *Edge
	cfg   *config.Config
	all   map[string]*door // by the content of what they were made of
	fresh []*door          // made for this file
	kinds []string         // of those
	then  []func()         // what changes in those that stay, once the file is in effect
	check []auth.Checker   // of tokens that open WebSockets bring
	hub   *broadcast.Hub   // nil if the file has none
	errs  []error
}

// open gives a door of e's that was made of the same, files included, or a new one. of is
// a pointer.
func (d *doors) open(kind string, pos config.Pos, of any, build func(*door) error, files ...string) *door {
	parts := []string{kind, content(reflect.ValueOf(of).Elem())}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil { // build says what is wrong
			parts = append(parts, fmt.Sprintf("%x", sha256.Sum256(b)))
		}
	}
	key := strings.Join(parts, " ")
	if made := d.all[key]; made != nil {
		return made
	}
	made := d.e.doors[key]
	if made == nil {
		made = new(door)
		if err := build(made); err != nil {
			d.errs = append(d.errs, fmt.Errorf("%s:%d:%d: %s: %w", d.cfg.File, pos.Line, pos.Col, kind, err))
			return made
		}
		d.fresh, d.kinds = append(d.fresh, made), append(d.kinds, kind)
	}
	d.all[key] = made
	return made
}

// drop closes what was made for a file that does not come into effect.
func (d *doors) drop() {
	for _, made := range d.fresh {
		if made.hub != nil {
			made.hub.Close()
		}
		if made.close != nil {
			made.close()
		}
	}
}

// openDoors makes the guards of a file, and says what keeps it from that in errs.
func (e *Edge) openDoors(cfg *config.Config) (d *doors, byName, limits map[string]protocols.Guard) {
	d = &doors{e: e, cfg: cfg, all: map[string]*door{}}
	byName, limits = map[string]protocols.Guard{}, map[string]protocols.Guard{}
	a := &cfg.Auth
	byName["tickets"] = e.tickets
	if a.JWT != nil {
		byName["jwt"] = d.open("auth.jwt", a.JWT.Pos, a.JWT, func(made *door) error { return e.jwt(made, a.JWT) }, a.JWT.Keys...).guard
		if c, ok := byName["jwt"].(auth.Checker); ok {
			d.check = append(d.check, c)
		}
	}
	m := cmp.Or(a.MTLS, &config.MTLS{})
	byName["mtls"] = d.open("auth.mtls", m.Pos, m, func(made *door) (err error) {
		made.guard, err = auth.NewMTLS(auth.MTLSOptions{Name: auth.CertName(m.Identity), Allow: m.Allow})
		return err
	}).guard
	if k := a.Keys; k != nil {
		byName["keys"] = d.keys(k)
	}
	if f := a.Forward; f != nil {
		byName["forward"] = d.open("auth.forward", f.Pos, f, func(made *door) error { return e.forward(made, f) }).guard
	}
	var shared *limit.Shared
	if r := cfg.Redis; r != nil {
		shared = d.open("redis", r.Pos, r, func(made *door) error { return redis(made, r) }, r.PasswordFile).shared
	}
	for i := range cfg.Limits.Named {
		l := &cfg.Limits.Named[i]
		o := limitOf(l, shared)
		if err := o.Check(); err != nil {
			d.errs = append(d.errs, fmt.Errorf("%s:%d:%d: limits.named.%s: %w", cfg.File, l.Pos.Line, l.Pos.Col, l.Name, err))
			continue
		}
		limits[l.Name] = &named{registry: &e.limits, options: o}
	}
	return d, byName, limits
}

func limitOf(l *config.Limit, shared *limit.Shared) limit.Options {
	per, _ := limit.ParsePer(l.Per) // config knows no other
	o := limit.Options{
		Name: l.Name, Rate: limit.Rate{Calls: l.Rate.N, Every: l.Rate.Per}, Burst: l.Burst, Per: per,
		Concurrency: l.Concurrency, Queue: l.Queue, Wait: l.Wait, FailClosed: l.FailClosed,
	}
	if l.Shared {
		o.Shared = shared
	}
	return o
}

// named is a limit of a file. Its limiter is taken from the registry when the file is in
// effect, and not before: it may be another's until then.
type named struct {
	registry *limit.Registry
	options  limit.Options
	*limit.Limiter
}

// take puts the limits of a file in effect, with what is known of callers.
func (e *Edge) take(limits map[string]protocols.Guard) error {
	var names []string
	var errs []error
	for name, g := range limits {
		n := g.(*named) //nolint:forcetypeassert // openDoors makes no others
		var err error
		n.Limiter, err = n.registry.Get(n.options)
		errs, names = append(errs, err), append(names, name)
	}
	e.limits.Sweep(names)
	return errors.Join(errs...)
}

// jwt makes a guard of tokens.
func (e *Edge) jwt(made *door, j *config.JWT) error {
	o := auth.JWTOptions{Issuer: j.Issuer, Audience: j.Audience, Algorithms: j.Algorithms, Leeway: j.Leeway, Scopes: j.Scopes, Log: e.log}
	if j.Leeway == 0 {
		o.Leeway = -1
	}
	for _, s := range j.From {
		from, err := auth.ParseSource(s)
		if err != nil {
			return fmt.Errorf("from: %w", err)
		}
		o.From = append(o.From, from)
	}
	var run func(context.Context)
	if j.JWKS != "" {
		keys, err := auth.NewJWKS(auth.JWKSOptions{URL: j.JWKS, Log: e.log})
		if err != nil {
			return fmt.Errorf("jwks: %w", err)
		}
		o.Keys, run, made.ready = keys, keys.Run, keys.Ready
	} else {
		keys, err := auth.ReadKeys(j.Keys...)
		if err != nil {
			return fmt.Errorf("keys: %w", err)
		}
		o.Keys = keys
	}
	guard, err := auth.NewJWT(o)
	if err != nil {
		return err
	}
	made.guard = guard
	if run != nil && e.stop != nil { // a check fetches nothing
		ctx, cancel := context.WithCancel(context.Background())
		made.close = cancel
		e.work.Go(func() { run(ctx) })
	}
	return nil
}

// forward makes a guard that asks another service.
func (e *Edge) forward(made *door, f *config.Forward) error {
	o := auth.ForwardOptions{
		Fields: f.Fields, Remove: f.Remove, Upstream: f.Upstream, Identity: f.Identity, Expires: f.Expires,
		Timeout: f.Timeout, Concurrency: f.Concurrency, Log: e.log,
	}
	var done func()
	if f.GRPC != "" {
		service, err := extauthz.New(extauthz.Options{Target: f.GRPC})
		if err != nil {
			return err
		}
		o.Authority, done = service, func() { _ = service.Close() } // nobody asks any more
	} else {
		service, err := auth.NewHTTPAuthority(auth.HTTPAuthorityOptions{URL: f.URL, Conns: f.Concurrency})
		if err != nil {
			return err
		}
		o.Authority, done = service, service.Close
	}
	guard, err := auth.NewForward(o)
	if err != nil {
		done()
		return err
	}
	made.guard, made.close = guard, done
	return nil
}

// redisOptions say where Redis is.
func redisOptions(r *config.Redis) (o redisstore.Options, err error) {
	o.URL = r.URL
	if r.PasswordFile != "" {
		b, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return o, fmt.Errorf("password_file: %w", err)
		}
		o.Password = strings.TrimSpace(string(b))
	}
	return o, nil
}

// redis makes what instances count together in.
func redis(made *door, r *config.Redis) error {
	o, err := redisOptions(r)
	if err != nil {
		return err
	}
	store, err := redisstore.Open(o)
	if err != nil {
		return err
	}
	made.shared = limit.Share(store)
	made.close = func() {
		made.shared.Close()
		store.Close()
	}
	return nil
}

// guardsOf are a route's, in the order in which they are asked: who it is, whether
// that one may, and how much.
func (e *Edge) guardsOf(r *config.Route, byName, limits map[string]protocols.Guard) (list []protocols.Guard) {
	var who []protocols.Guard
	for _, name := range r.Auth {
		if g := byName[name]; g != nil {
			who = append(who, g)
		}
	}
	switch {
	case len(r.Auth) == 0:
	case r.AuthAll: // without a guard, which config does not let be, they let nobody in
		list = append(list, auth.All(who...))
	default:
		list = append(list, auth.Any(who...))
	}
	var rules *auth.Require
	if a := r.Allow; a != nil {
		rules = &auth.Require{Subjects: a.Subjects, Issuers: a.Issuers, Claims: a.Claims}
		list = append(list, rules)
	}
	if len(r.Auth) > 0 {
		list = append(list, e.open.Guard(rules))
	}
	if l := limits[r.Limit]; l != nil {
		list = append(list, l)
	}
	return list
}

// everywhere are the guards of all calls, and who goes when they do not suffice.
func (e *Edge) everywhere(cfg *config.Config) (list []protocols.Guard, relief router.Relief) {
	shed := limit.ShedOptions{Latency: -1}
	if cfg.Limits.Shed == everyOne {
		shed.Latency = 0
	}
	if cfg.Limits.Shed == everyOne || cfg.Limits.Shed == "memory" && debug.SetMemoryLimit(-1) != math.MaxInt64 {
		guard := limit.NewShed(shed)
		list, relief.Overloaded = append(list, guard), guard.Overloaded
	}
	if f := cfg.Limits.InFlight; f != (config.InFlight{}) {
		list = append(list, limit.NewBulkheads(limit.Bounds(f)))
	}
	return list, relief
}

// retire has a door closed once no call can be at it any more.
func (e *Edge) retire(now map[string]*door) {
	for key, was := range e.doors {
		if now[key] != nil {
			continue
		}
		if was.hub != nil { // its subscribers come back, to the one in its place
			e.work.Go(was.hub.Close)
		}
		if was.close != nil {
			e.shut = append(e.shut, shut{was.close, time.Now()})
		}
		if was.keys != nil { // what its keys have opened ends
			_ = was.keys.Read(strings.NewReader(""), "")
		}
	}
	e.doors = now
}

// keys gives the guard of keys, which stays while files of them come and go: it knows
// what each key has opened.
func (d *doors) keys(k *config.APIKeys) protocols.Guard {
	o := auth.APIKeysOptions{Header: k.Header, Prefix: k.Prefix}
	text, err := os.ReadFile(k.File)
	if err == nil {
		err = auth.NewAPIKeys(o).Read(bytes.NewReader(text), k.File)
	}
	if err != nil {
		d.errs = append(d.errs, fmt.Errorf("%s:%d:%d: auth.keys: %w", d.cfg.File, k.Pos.Line, k.Pos.Col, err))
		return nil
	}
	read := func(keys *auth.APIKeys) error { return keys.Read(bytes.NewReader(text), k.File) }
	sum := sha256.Sum256(text)
	made := d.open("auth.keys", k.Pos, &o, func(made *door) error {
		made.keys, made.sum = auth.NewAPIKeys(o), sum
		made.guard = made.keys
		return read(made.keys)
	})
	if made.sum != sum {
		d.kinds = append(d.kinds, "auth.keys")
		d.then = append(d.then, func() {
			_ = read(made.keys) // it has been read before
			made.sum = sum
		})
	}
	return made.guard
}

// shut is what a door that is in use no more has open.
type shut struct {
	close func()
	since time.Time
}

// shutAfter is longer than a guard takes over a call.
const shutAfter = 70 * time.Second

// shutDoors closes those that are due.
func (e *Edge) shutDoors() {
	e.shut = slices.DeleteFunc(e.shut, func(s shut) bool {
		due := time.Since(s.since) > shutAfter
		if due {
			s.close()
		}
		return due
	})
}
