package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Options say where Redis is.
type Options struct {
	// URL is redis://[user@]host[:port][/db], rediss:// for TLS, or unix:///path?db=n. For
	// sentinels it is redis+sentinel://host:port/db?master=NAME, for a cluster
	// redis+cluster://host:port, with more of them as &addr=host:port; rediss+ for TLS.
	URL string
	// Password comes before one in the URL.
	Password string
	// TLS is the client's side, for rediss: roots, a client certificate. Nil trusts the system's roots.
	TLS *tls.Config
}

// The bounds of what Redis may cost.
const (
	dialFor    = time.Second     // to connect, to the end of AUTH
	answerFor  = time.Second     // for an answer that nobody waits for any more
	silentFor  = 2 * time.Second // between pings that are not answered: then the connection is closed
	pingEvery  = time.Second     // on an idle connection
	inFlight   = 1024            // commands that Redis has not answered
	gatherFor  = 20 * time.Microsecond
	bufferSize = 64 << 10
)

var (
	errClosed = errors.New("redisstore: closed")
	errBusy   = errors.New("redisstore: too many commands without an answer")
	errURL    = errors.New("redisstore: want redis://host:port/db, rediss://, redis+sentinel://, redis+cluster:// or unix:///path")
)

// Store is a Redis. It is safe for concurrent use.
type Store struct {
	option rueidis.ClientOption
	take   *rueidis.Lua
	ctx    context.Context //nolint:containedctx // of commands, which go on when their callers have left
	cancel context.CancelFunc
	open   atomic.Int64 // commands
	most   int64        // of them

	dial   sync.Mutex // guards client; held while it first connects
	client rueidis.Client

	mu     sync.Mutex // guards closed, and what is added to work
	closed bool
	work   sync.WaitGroup
}

// Open makes a Store. It connects when it is first asked. The error is of the URL, and does not
// show it: it may hold a password.
func Open(o Options) (*Store, error) {
	option, err := o.client()
	if err != nil {
		return nil, err
	}
	s := &Store{option: option, take: rueidis.NewLuaScript(gcra), most: inFlight}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

func (o *Options) client() (c rueidis.ClientOption, err error) {
	a, err := o.Parse()
	if err != nil {
		return c, err
	}
	network := "tcp"
	if a.Kind == Socket {
		network = "unix"
	}
	c.InitAddress, c.SelectDB, c.TLSConfig = a.Addresses, a.DB, a.TLS
	c.Username, c.Password = a.User, a.Password
	c.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		if t != nil {
			return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, network, address)
		}
		return d.DialContext(ctx, network, address)
	}
	c.ClientName = "oneport"
	c.ClientSetInfo = rueidis.DisableClientSetInfo
	c.Dialer = net.Dialer{Timeout: dialFor, KeepAlive: pingEvery}
	c.ConnWriteTimeout = silentFor
	c.MaxFlushDelay = gatherFor
	c.ReadBufferEachConn, c.WriteBufferEachConn = bufferSize, bufferSize
	c.PipelineMultiplex = -1 // one connection
	c.ForceSingleClient = a.Kind == Single || a.Kind == Socket
	if a.Kind == Sentinel {
		c.Sentinel = rueidis.SentinelOption{MasterSet: a.Master, TLSConfig: a.TLS}
	}
	c.DisableCache = true     // nothing is read that could be
	c.DisableRetry = true     // whoever calls decides
	c.AlwaysPipelining = true // else a command that is late closes the connection
	return c, nil
}

// Close ends what is under way, and closes the connection.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.dial.Lock()
	if s.client != nil {
		s.client.Close()
	}
	s.dial.Unlock()
	s.work.Wait()
}

// connect gives the client. The first caller connects; later ones get an error of that, and
// then the client connects by itself, when it is asked.
func (s *Store) connect() (rueidis.Client, error) {
	s.dial.Lock()
	defer s.dial.Unlock()
	if s.ctx.Err() != nil {
		return nil, errClosed
	}
	if s.client != nil {
		return s.client, nil
	}
	c, err := rueidis.NewClient(s.option) // with ForceSingleClient there is one even if it could not connect
	if err == nil || s.option.ForceSingleClient {
		s.client = c
	}
	return s.client, err
}

// do has f ask Redis, in a goroutine of its own, and waits until it has an answer or ctx
// ends. rueidis has its callers connect, and all wait for the one who does, whatever their contexts say.
func (s *Store) do(ctx context.Context, f func(ctx context.Context, c rueidis.Client) rueidis.RedisResult) (rueidis.RedisResult, error) {
	if err := ctx.Err(); err != nil {
		return rueidis.RedisResult{}, err
	}
	if s.open.Add(1) > s.most {
		s.open.Add(-1)
		return rueidis.RedisResult{}, errBusy
	}
	answer := make(chan rueidis.RedisResult, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.open.Add(-1)
		return rueidis.RedisResult{}, errClosed
	}
	s.work.Go(func() {
		defer s.open.Add(-1)
		c, err := s.connect()
		if err != nil {
			answer <- rueidis.NewErrorResult(err)
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, answerFor)
		defer cancel()
		answer <- f(ctx, c)
	})
	s.mu.Unlock()
	select {
	case r := <-answer:
		return r, r.Error()
	case <-ctx.Done():
		return rueidis.RedisResult{}, ctx.Err()
	}
}
