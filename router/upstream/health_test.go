package upstream

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// wantSick waits until the only server of a pool is sick, or well.
func wantSick(t *testing.T, u *Upstream, sick bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for u.Servers()[0].Sick != sick {
		if time.Now().After(deadline) {
			t.Fatalf("sick: %v; want %v", !sick, sick)
		}
		time.Sleep(time.Millisecond)
	}
}

func checked(t *testing.T, url string, h Health) *Upstream {
	t.Helper()
	h.Every = 2 * time.Millisecond
	h.Timeout = time.Second
	u, err := New(url, Options{Health: h, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func TestHealthHTTP(t *testing.T) {
	var status atomic.Int32
	var asked atomic.Pointer[http.Request]
	status.Store(500)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Clone(context.Background()))
		w.WriteHeader(int(status.Load()))
	}))
	defer srv.Close()
	u := checked(t, srv.URL, Health{Path: "/health%2Fz?full=1", Host: "app.test"})
	wantSick(t, u, true)
	if r := asked.Load(); r.RequestURI != "/health%2Fz?full=1" || r.Host != "app.test" || r.Method != http.MethodGet {
		t.Errorf("the server was asked %s %s%s", r.Method, r.Host, r.RequestURI)
	}
	a := anybody()
	if u.choose(&a, nil) != nil {
		t.Error("a sick server gets calls")
	}
	status.Store(302)
	wantSick(t, u, false)
	srv.Close()
	wantSick(t, u, true)
}

// A server that hangs is as bad as none.
func TestHealthTimeout(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	u, err := New("http://"+ln.Addr().String(), Options{Log: slog.New(slog.DiscardHandler), Health: Health{Path: "/", Every: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	wantSick(t, u, true)
}

func TestHealthTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	u := checked(t, "http://"+addr, Health{TCP: true})
	wantSick(t, u, true)
	if ln, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	wantSick(t, u, false)
	_ = ln.Close()
	wantSick(t, u, true)
}

func TestHealthGRPC(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, state := grpc.NewServer(), health.NewServer()
	healthv1.RegisterHealthServer(srv, state)
	go func() { _ = srv.Serve(ln) }()
	defer srv.Stop()
	state.SetServingStatus("app", healthv1.HealthCheckResponse_NOT_SERVING)
	u := checked(t, "grpc://"+ln.Addr().String(), Health{GRPC: true, Service: "app"})
	wantSick(t, u, true)
	state.SetServingStatus("app", healthv1.HealthCheckResponse_SERVING)
	wantSick(t, u, false)
	state.SetServingStatus("app", healthv1.HealthCheckResponse_SERVICE_UNKNOWN)
	wantSick(t, u, true)

	all := checked(t, "grpc://"+ln.Addr().String(), Health{GRPC: true, Service: "nobody"})
	wantSick(t, all, true)
	other := checked(t, "grpc://"+ln.Addr().String(), Health{GRPC: true})
	wantSick(t, other, false) // from the beginning
	state.Shutdown()
	wantSick(t, other, true)
}
