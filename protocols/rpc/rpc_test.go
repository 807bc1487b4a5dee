package rpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/protocols/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checker is a health service that shows what its context says of the peer.
type checker struct {
	healthpb.UnimplementedHealthServer
	info chan credentials.AuthInfo
}

func (c checker) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	p, _ := peer.FromContext(ctx)
	c.info <- p.AuthInfo
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func TestServicesReportMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		register func(s *rpc.Services)
		want     string
	}{
		"twice": {func(s *rpc.Services) {
			healthpb.RegisterHealthServer(s, health.NewServer())
			healthpb.RegisterHealthServer(s, health.NewServer())
		}, "grpc.health.v1.Health registered twice"},
		"the wrong type": {func(s *rpc.Services) {
			s.RegisterService(&healthpb.Health_ServiceDesc, "no server")
		}, "string does not implement grpc_health_v1.HealthServer"},
	} {
		var s rpc.Services
		tc.register(&s)
		if _, err := s.Build(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	var late rpc.Services
	srv, err := late.Build()
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	healthpb.RegisterHealthServer(&late, health.NewServer())
	if err := late.Err(); err == nil || !strings.Contains(err.Error(), "after the server has started") {
		t.Errorf("late: %v", err)
	}
}

// The services' own health service is kept, and a built one is added otherwise.
func TestBuildAddsHealthAndReflection(t *testing.T) {
	var s rpc.Services
	if !s.Empty() {
		t.Error("not empty")
	}
	healthpb.RegisterHealthServer(&s, checker{})
	srv, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	srv.NotServing() // nothing to say, and no panic
	for _, want := range []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} {
		if _, ok := srv.GetServiceInfo()[want]; !ok {
			t.Errorf("%s is not served", want)
		}
	}
	srv.Stop()
}

// handshaken is a listener whose TLS connections have finished their handshake,
// as those from protocols/mux have.
type handshaken struct {
	net.Listener
	cfg *tls.Config
}

func (l handshaken) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.cfg == nil {
		return c, err
	}
	tc := tls.Server(c, l.cfg)
	return tc, tc.HandshakeContext(context.Background())
}

// A native server on routed connections tells its handlers the TLS state, with
// the client's SPIFFE ID, and that a plaintext connection has none.
func TestCredentialsOfANativeServer(t *testing.T) {
	ca, err := certs.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	serverCert, err := ca.Server("localhost")
	if err != nil {
		t.Fatal(err)
	}
	info := make(chan credentials.AuthInfo, 1)
	for _, secure := range []bool{true, false} {
		var services rpc.Services
		healthpb.RegisterHealthServer(&services, checker{info: info})
		srv, err := services.Build(rpc.ServerOptions(nil, nil)...)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := handshaken{Listener: ln}
		creds := insecure.NewCredentials()
		if secure {
			l.cfg = &tls.Config{Certificates: []tls.Certificate{serverCert}, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert}
			creds = credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{workload(t)}})
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(l) }()
		cc, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		got := <-info
		tlsInfo, ok := got.(credentials.TLSInfo)
		switch {
		case ok != secure:
			t.Errorf("TLS %t: %T", secure, got)
		case secure && (tlsInfo.SPIFFEID == nil || tlsInfo.SPIFFEID.String() != "spiffe://example.org/app" ||
			tlsInfo.SecurityLevel != credentials.PrivacyAndIntegrity || tlsInfo.State.NegotiatedProtocol != "h2"):
			t.Errorf("%+v", tlsInfo)
		case !secure && got.AuthType() != "insecure":
			t.Errorf("plaintext calls itself %s", got.AuthType())
		}
		cc.Close()
		srv.Stop()
		<-done
	}
}

// workload gives a certificate with a SPIFFE ID.
func workload(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		URIs:         []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/app"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// ServerOptions recover panics of handlers that a native server runs.
func TestPanicsAreRecovered(t *testing.T) {
	var services rpc.Services
	healthpb.RegisterHealthServer(&services, panicking{})
	srv, err := services.Build(rpc.ServerOptions(nil, nil)...)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	cc, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := healthpb.NewHealthClient(cc)
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "demand") {
		t.Errorf("unary: %v", err)
	}
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	cc.Close()
	srv.Stop()
	<-done
}

type panicking struct {
	healthpb.UnimplementedHealthServer
}

func (panicking) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	panic("on demand")
}

func (panicking) Watch(*healthpb.HealthCheckRequest, grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	panic("on demand")
}
