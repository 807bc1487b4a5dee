package extauthz

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is a request's head.
type asked []protocols.Field

func (a asked) Get(name string) string {
	if v := a.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (a asked) Values(name string) (all []string) {
	for _, f := range a {
		if f.Is(name) {
			all = append(all, f.Value)
		}
	}
	return all
}

func (a asked) Query() string { return "x=1" }

func callOf(t testing.TB, fields ...protocols.Field) *protocols.Call {
	t.Helper()
	call := new(protocols.Call)
	call.Begin(t.Context(), protocols.NewID(1, 2), "")
	call.Protocol, call.Method, call.Host, call.Path, call.Version = protocols.GRPC, "POST", "example.com", "/pkg.Service/Method", "HTTP/2.0"
	call.Conn = &protocols.Conn{
		Remote: netip.MustParseAddrPort("[::ffff:192.0.2.7]:1234"), Local: netip.MustParseAddrPort("[2001:db8::1]:443"),
		SNI: "sni.example.com", TLS: new(tls.ConnectionState),
	}
	call.Ask(asked(fields))
	t.Cleanup(func() { call.Finish(protocols.Result{}) })
	return call
}

// field and its like write a message as a service would.
func field(n protowire.Number, parts ...string) string {
	return string(protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), strings.Join(parts, "")))
}

func number(n protowire.Number, v uint64) string {
	return string(protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v))
}

func option(name, value string) string {
	return field(2, field(1, field(1, name), field(2, value)), field(2, number(1, 1)), number(3, 2))
}

func TestParseAnswer(t *testing.T) {
	fd := func(pairs ...string) (all []protocols.Field) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, protocols.Field{Name: pairs[i], Value: pairs[i+1]})
		}
		return all
	}
	okStatus, denied7 := field(1), field(1, number(1, 7))
	for name, tc := range map[string]struct {
		answer string
		want   auth.Verdict // Status 0 for an error
	}{
		"yes":                     {okStatus, auth.Verdict{Status: 200}},
		"yes, in numbers":         {field(1, number(1, 0)), auth.Verdict{Status: 200}},
		"yes, with fields":        {okStatus + field(3, option("x-a", "1"), option("x-b", "2"), field(5, "x-c")), auth.Verdict{Status: 200, Fields: fd("x-a", "1", "x-b", "2"), Remove: []string{"x-c"}}},
		"yes, raw value":          {okStatus + field(3, field(2, field(1, field(1, "x-a"), field(3, "raw")))), auth.Verdict{Status: 200, Fields: fd("x-a", "raw")}},
		"yes without a status":    {field(3), auth.Verdict{Status: 200}},
		"yes in two parts":        {field(3, option("x-a", "1")) + okStatus + field(3, option("x-b", "2")), auth.Verdict{Status: 200, Fields: fd("x-a", "1", "x-b", "2")}},
		"no":                      {denied7, auth.Verdict{Status: 403}},
		"no, negative":            {field(1, number(1, 1<<64-1)), auth.Verdict{Status: 403}},
		"no, with an answer":      {denied7 + field(2, field(1, number(1, 401)), option("WWW-Authenticate", "Bearer"), field(3, "log in")), auth.Verdict{Status: 401, Text: "log in", Fields: fd("WWW-Authenticate", "Bearer")}},
		"no, whatever is in ok":   {denied7 + field(3, option("x-a", "1")), auth.Verdict{Status: 403}},
		"no without a status":     {field(2, field(1, number(1, 429))), auth.Verdict{Status: 429}},
		"yes, but with a denial":  {okStatus + field(2, field(1, number(1, 401))), auth.Verdict{Status: 200}},
		"the last of two counts":  {field(3, option("x-a", "1")) + field(2), auth.Verdict{Status: 403}},
		"no with status 200":      {denied7 + field(2, field(1, number(1, 200))), auth.Verdict{}},
		"nothing":                 {"", auth.Verdict{}},
		"it has failed":           {okStatus + field(5), auth.Verdict{}},
		"unknown fields":          {okStatus + field(4, "x") + number(9, 1) + string(protowire.AppendFixed32(protowire.AppendTag(nil, 10, protowire.Fixed32Type), 1)), auth.Verdict{Status: 200}},
		"unknown fields alone":    {field(4, "x"), auth.Verdict{}},
		"the status as a number":  {number(1, 0), auth.Verdict{}},
		"cut off":                 {okStatus + field(3, option("x-a", "1"))[:9], auth.Verdict{}},
		"cut off within":          {field(1, "\x08"), auth.Verdict{}},
		"a group that never ends": {okStatus + strings.Repeat("\x23", 100), auth.Verdict{}},
		"too many fields":         {okStatus + field(3, strings.Repeat(option("x", "y"), 129)), auth.Verdict{}},
		"too many removed":        {okStatus + field(3, strings.Repeat(field(5, "x"), 129)), auth.Verdict{}},
		"a field without a name":  {okStatus + field(3, option("", "y")), auth.Verdict{Status: 200}},
		"not a message":           {"\xff\xff\xff\xff", auth.Verdict{}},
		"field number 0":          {"\x00\x00", auth.Verdict{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseAnswer([]byte(tc.answer))
			if (err != nil) != (tc.want.Status == 0) || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(field(1) + field(3, option("x-a", "1"), field(5, "x-c"))))
	f.Add([]byte(field(1, number(1, 7)) + field(2, field(1, number(1, 401)), option("a", "b"), field(3, "text"))))
	f.Add([]byte("\x23\x23\x24"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseAnswer(b)
		if err == nil && v.Status == 0 || err != nil && !reflect.DeepEqual(v, auth.Verdict{}) {
			t.Errorf("%+v, %v", v, err)
		}
		if len(v.Fields) > mostFields || len(v.Remove) > mostFields {
			t.Errorf("%d fields, %d removed", len(v.Fields), len(v.Remove))
		}
		// Whoever lets a call in has said something: no answer is a yes by being empty.
		if v.Status == 200 && len(b) < 2 {
			t.Errorf("%x lets in", b)
		}
	})
}

// serve is a service that answers by f until the test ends.
func serve(t *testing.T, f func(ctx context.Context, method string, question []byte) ([]byte, error)) *Service {
	t.Helper()
	service, listen := serveAt(t, f)
	listen()
	return service
}

// serveAt is the same, and begins when it is told to.
func serveAt(t *testing.T, f func(ctx context.Context, method string, question []byte) ([]byte, error)) (_ *Service, listen func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		var question []byte
		if err := s.RecvMsg(&question); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(s)
		answer, err := f(s.Context(), method, question)
		if err != nil {
			return err
		}
		return s.SendMsg(&answer)
	}))
	var done sync.WaitGroup
	t.Cleanup(done.Wait)
	t.Cleanup(server.Stop)
	service, err := New(Options{Target: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Close() })
	return service, func() {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		done.Go(func() { _ = server.Serve(ln) })
	}
}

// A service that comes late, or back, is asked again soon.
func TestServiceComesBack(t *testing.T) {
	service, listen := serveAt(t, func(context.Context, string, []byte) ([]byte, error) { return []byte(field(1)), nil })
	g := guard(t, service, time.Second)
	for range 10 {
		if _, err := g.Admit(t.Context(), callOf(t)); err == nil {
			t.Fatal("nobody is there, and lets in")
		}
	}
	listen()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := g.Admit(t.Context(), callOf(t)); err == nil {
			return
		} else if time.Since(begun) > 10*time.Second {
			t.Fatalf("still %v", err)
		}
	}
}

func guard(t *testing.T, s *Service, timeout time.Duration) *auth.Forward {
	t.Helper()
	f, err := auth.NewForward(auth.ForwardOptions{Authority: s, Timeout: timeout, Upstream: []string{"X-User-Id"}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestService(t *testing.T) {
	var method string
	var question []byte
	service := serve(t, func(_ context.Context, m string, q []byte) ([]byte, error) {
		method, question = m, q
		return []byte(field(1) + field(3, option("x-user-id", "alice"), field(5, "x-internal"))), nil
	})
	call := callOf(t, protocols.Field{Name: "authorization", Value: "Bearer t"}, protocols.Field{Name: "x-user-id", Value: "mallory"}, protocols.Field{Name: "x-internal", Value: "1"})
	u, err := url.Parse("spiffe://example.org/web")
	if err != nil {
		t.Fatal(err)
	}
	call.Conn.TLS.VerifiedChains = [][]*x509.Certificate{{{URIs: []*url.URL{u}, Subject: pkix.Name{CommonName: "cn"}}}}
	if _, err := guard(t, service, 5*time.Second).Admit(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if id := call.Identity(); id == nil || id.Subject != "alice" {
		t.Errorf("identity %v", id)
	}
	for _, want := range []protocols.Field{{Name: "X-User-Id", Value: "alice"}, {Name: "x-internal"}, {Name: "Authorization"}} {
		if !slices.Contains(call.Handed(), want) {
			t.Errorf("handed %v, want %v", call.Handed(), want)
		}
	}
	if method != "/envoy.service.auth.v3.Authorization/Check" {
		t.Errorf("asked %s", method)
	}
	for _, want := range []string{
		"192.0.2.7", "2001:db8::1", "sni.example.com", "spiffe://example.org/web", "POST", "/pkg.Service/Method?x=1", "example.com", "https",
		"HTTP/2", "authorization", "Bearer t", ":path", call.RequestID(),
	} {
		if !strings.Contains(string(question), want) {
			t.Errorf("the question does not have %s", want)
		}
	}
	if strings.Contains(string(question), "mallory") {
		t.Error("the question has a field that it should not")
	}
}

func TestServiceRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(ctx context.Context) ([]byte, error)
		want   protocols.Reason
		text   string
	}{
		"no": {func(context.Context) ([]byte, error) {
			return []byte(field(1, number(1, 16)) + field(2, field(1, number(1, 401)), field(3, "log in"))), nil
		}, protocols.ReasonUnauthenticated, "log in"},
		"not allowed": {func(context.Context) ([]byte, error) { return []byte(field(1, number(1, 7))), nil }, protocols.ReasonForbidden, ""},
		"nothing":     {func(context.Context) ([]byte, error) { return nil, nil }, protocols.ReasonOverloaded, ""},
		"a status": {func(context.Context) ([]byte, error) {
			return nil, status.Error(codes.PermissionDenied, "planted")
		}, protocols.ReasonOverloaded, ""},
		"too much": {func(context.Context) ([]byte, error) {
			return []byte(field(1) + field(4, strings.Repeat("x", 10<<20))), nil
		}, protocols.ReasonOverloaded, ""},
		"a new line": {func(context.Context) ([]byte, error) {
			return []byte(field(1) + field(3, option("x-user-id", "a\r\nx-admin: 1"))), nil
		}, protocols.ReasonOverloaded, ""},
		"it hangs": {func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, protocols.ReasonOverloaded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			service := serve(t, func(ctx context.Context, _ string, _ []byte) ([]byte, error) { return tc.answer(ctx) })
			timeout := 10 * time.Second
			if name == "it hangs" {
				timeout = 50 * time.Millisecond
			}
			call := callOf(t)
			_, err := guard(t, service, timeout).Admit(t.Context(), call)
			r, ok := errors.AsType[*protocols.Refusal](err)
			if !ok || r.Reason != tc.want || r.Text != tc.text || call.Identity() != nil {
				t.Errorf("%v, %+v", err, r)
			}
		})
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no target is taken")
	}
	_, err := New(Options{Target: "x", Dial: []grpc.DialOption{grpc.WithTransportCredentials(nil)}})
	if err == nil || !strings.HasPrefix(err.Error(), "extauthz: ") {
		t.Errorf("without credentials: %v", err)
	}
}
