package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want Address // without TLS
		tls  bool
	}{
		{"redis://10.0.0.1", Address{Addresses: []string{"10.0.0.1:6379"}}, false},
		{"redis://bob@[::1]:7000/3", Address{Addresses: []string{"[::1]:7000"}, User: "bob", DB: 3}, false},
		{"rediss://example.com", Address{Addresses: []string{"example.com:6379"}}, true},
		{"unix:///run/redis?db=2", Address{Kind: Socket, Addresses: []string{"/run/redis"}, DB: 2}, false},
		{"redis+sentinel://a/1?master=main&addr=b:1", Address{Kind: Sentinel, Addresses: []string{"a:26379", "b:1"}, Master: "main", DB: 1}, false},
		{"rediss+cluster://a:1?addr=b:2&addr=c:3", Address{Kind: Cluster, Addresses: []string{"a:1", "b:2", "c:3"}}, true},
	} {
		o := Options{URL: tt.url, Password: "secret"}
		got, err := o.Parse()
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if got.Kind != tt.want.Kind || !slices.Equal(got.Addresses, tt.want.Addresses) || got.Master != tt.want.Master || got.User != tt.want.User ||
			got.DB != tt.want.DB || got.Password != "secret" || (got.TLS != nil) != tt.tls {
			t.Errorf("%s: %+v, want %+v", tt.url, got, tt.want)
		}
	}
	for _, url := range []string{
		"", "http://a", "redis://", "unix://", "redis://a?addr=b:1", "redis://a/x", "redis://a/-1", "redis+sentinel://a", "redis+cluster://a/1",
		"redis+other://a", "redis+cluster://a?addr=b", "redis+cluster://a?db=1", "unix:///s?x=1",
	} {
		if a, err := (&Options{URL: url}).Parse(); err == nil {
			t.Errorf("%q: %+v, want an error", url, a)
		}
	}
	if _, err := (&Options{URL: "redis://a", TLS: new(tls.Config)}).Parse(); err == nil {
		t.Error("TLS beside redis:// is no error")
	}
}

// A cluster, though of one server: limits are counted there too.
func TestClusterCounts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, port := ln.Addr().String(), ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close() // it is free a moment longer
	r := startRedis(t, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(port/2+1024))
	if got := r.ask(t, "CLUSTER ADDSLOTSRANGE 0 16383"); got != "+OK" {
		t.Fatal(got)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	s := open(t, Options{URL: "redis+cluster://" + addr})
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		ok, _, err := s.Take(ctx, "k", tenPerHour, 1, 1)
		cancel()
		if err == nil && ok {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v, %v: want a call let in", ok, err)
		}
	}
	if ok, _, err := s.Take(t.Context(), "k", tenPerHour, 1, 1); err != nil || ok {
		t.Errorf("%v, %v: want the next one refused", ok, err)
	}
}
