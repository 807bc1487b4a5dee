package redisstore

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Kind is what stands at an address.
type Kind uint8

// The kinds.
const (
	Single   Kind = iota // one server, or what answers as one
	Socket               // one server, at a socket of this machine
	Sentinel             // sentinels, which know the server
	Cluster              // servers that have the keys between them
)

// Address is an URL taken apart. Who has a client of its own for Redis takes it from here.
type Address struct {
	Kind      Kind
	Addresses []string // host:port, or the path of the socket
	Master    string   // of the sentinels
	User      string
	Password  string
	DB        int
	TLS       *tls.Config // nil for none
}

// Parse takes the URL apart. The error does not show it: it may hold a password.
func (o *Options) Parse() (a Address, err error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return a, errURL // not err, which quotes the URL
	}
	scheme, more, _ := strings.Cut(u.Scheme, "+")
	db := strings.TrimPrefix(u.Path, "/")
	query := u.Query()
	switch {
	case u.Scheme == "unix":
		a.Kind, a.Addresses, db = Socket, []string{u.Path}, query.Get("db")
		if u.Path == "" {
			return a, errURL
		}
		query.Del("db")
	case scheme != "redis" && scheme != "rediss" || u.Hostname() == "":
		return a, errURL
	default:
		port := "6379"
		switch more {
		case "":
		case "sentinel":
			if a.Master, port = query.Get("master"), "26379"; a.Master == "" {
				return a, errors.New("redisstore: sentinels need the name of their master: ?master=NAME")
			}
			a.Kind = Sentinel
			query.Del("master")
		case "cluster":
			a.Kind = Cluster
			if db != "" {
				return a, errors.New("redisstore: a cluster has no databases")
			}
		default:
			return a, errURL
		}
		a.Addresses = []string{net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))}
		if a.Kind != Single {
			for _, other := range query["addr"] {
				host, p, err := net.SplitHostPort(other)
				if err != nil || host == "" || p == "" {
					return a, errURL
				}
				a.Addresses = append(a.Addresses, other)
			}
			query.Del("addr")
		}
	}
	if len(query) > 0 {
		return a, errURL
	}
	if db != "" {
		if a.DB, err = strconv.Atoi(db); err != nil || a.DB < 0 {
			return a, errors.New("redisstore: the database is not a number")
		}
	}
	a.User = u.User.Username()
	a.Password, _ = u.User.Password()
	a.Password = cmp.Or(o.Password, a.Password)
	return a, o.tls(&a, scheme == "rediss", u.Hostname())
}

// tls says how an address is reached.
func (o *Options) tls(a *Address, wanted bool, host string) error {
	if !wanted {
		if o.TLS != nil {
			return errors.New("redisstore: TLS needs a URL that begins with rediss://")
		}
		return nil
	}
	if a.TLS = o.TLS.Clone(); a.TLS == nil {
		a.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if a.TLS.ServerName == "" && a.Kind == Single { // others have several names
		a.TLS.ServerName = host
	}
	return nil
}
