package auth_test

import (
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// askedHead is a request's head.
type askedHead struct {
	fields []protocols.Field
	query  string
}

func (a *askedHead) Get(name string) string {
	if v := a.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (a *askedHead) Values(name string) (all []string) {
	for _, f := range a.fields {
		if f.Is(name) {
			all = append(all, f.Value)
		}
	}
	return all
}

func (a *askedHead) Query() string { return a.query }

// newCall begins a call; fields are names and values in turn. What is behind "?" in path
// is its query.
func newCall(t testing.TB, protocol protocols.Protocol, path string, fields ...string) *protocols.Call {
	t.Helper()
	call := new(protocols.Call)
	call.Begin(t.Context(), protocols.NewID(1, 2), "")
	head := new(askedHead)
	call.Path, head.query, _ = strings.Cut(path, "?")
	call.Protocol, call.Method, call.Host, call.Version, call.Conn = protocol, "GET", "example.com", "HTTP/1.1", protocols.Conn{}.WithLive(nil, portOf(t))
	for i := 0; i < len(fields); i += 2 {
		head.fields = append(head.fields, protocols.Field{Name: fields[i], Value: fields[i+1]})
	}
	call.Ask(head)
	t.Cleanup(func() { call.Finish(protocols.Result{}) })
	return call
}

// ports have the open calls of each test.
var ports sync.Map

// portOf gives the open calls of a test.
func portOf(t testing.TB) *protocols.Calls {
	t.Helper()
	open, known := ports.LoadOrStore(t, protocols.NewCalls())
	if !known {
		t.Cleanup(func() { ports.Delete(t) })
	}
	return open.(*protocols.Calls)
}

// askGuard asks a guard at once, or by Admit if it must wait.
func askGuard(t testing.TB, g protocols.Guard, call *protocols.Call) error {
	t.Helper()
	ctx, rest, err := protocols.AdmitNow(t.Context(), []protocols.Guard{g}, call)
	if err != nil || len(rest) == 0 {
		return err
	}
	_, err = protocols.Admit(ctx, rest, call)
	return err
}

// wantRefusal fails unless err is a refusal for that reason.
func wantRefusal(t testing.TB, err error, want protocols.Reason) *protocols.Refusal {
	t.Helper()
	if err == nil {
		t.Fatalf("admitted, want refusal %d", want)
	}
	r := protocols.RefusalOf(err)
	if r.Reason != want {
		t.Fatalf("refused: %v (reason %d), want reason %d", err, r.Reason, want)
	}
	return r
}

// serverGets is what a server gets under a name: what guards have set, else what the client has sent.
func serverGets(call *protocols.Call, name string) string {
	for _, f := range call.Handed() {
		if f.Is(name) {
			return f.Value
		}
	}
	return call.Header(name)
}

var _ = []protocols.Quick{auth.Any(), auth.All(), (*auth.MTLS)(nil), (*auth.APIKeys)(nil), (*auth.Require)(nil), (*auth.Tickets)(nil)}

var _ = []auth.Cleaner{(*auth.APIKeys)(nil), (*auth.Forward)(nil), (*auth.JWT)(nil), (*auth.Tickets)(nil)}
