package auth_test

import (
	"testing"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// A token that was checked before costs well under a microsecond; a gRPC call is kept in a
// list on top, and here is a new call each time.
func BenchmarkJWTRemembered(b *testing.B) {
	for _, p := range []protocols.Protocol{protocols.HTTP, protocols.GRPC} {
		b.Run(p.String(), func(b *testing.B) {
			g := jwtGuard(b, nil)
			call, ctx := jwtCall(p, "Authorization: Bearer "+jwtGood(nil))
			if why := jwtTry(b, g, call, ctx); why != "" {
				b.Fatal(why)
			}
			fresh := jwtBench(call)
			b.ReportAllocs()
			for b.Loop() {
				if p != protocols.HTTP { // what is left to do when a call ends adds up
					call.Finish(protocols.Result{})
					call = fresh.again()
				}
				if _, err := g.AdmitNow(ctx, call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benched is a call that can be made again: Finish ends one for good.
type benched struct {
	protocol protocols.Protocol
	conn     *protocols.Conn
	asked    jwtAsked
}

func jwtBench(call *protocols.Call) *benched {
	return &benched{call.Protocol, call.Conn, jwtAsked{header: map[string][]string{"Authorization": call.Headers("Authorization")}}}
}

func (b *benched) again() *protocols.Call {
	c := &protocols.Call{Protocol: b.protocol, Conn: b.conn}
	c.Ask(&b.asked)
	return c
}

// A token that must be checked, by algorithm.
func BenchmarkJWTCheck(b *testing.B) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			key, err := auth.GenerateKey(alg)
			if err != nil {
				b.Fatal(err)
			}
			mint, err := auth.NewMint(key, alg)
			if err != nil {
				b.Fatal(err)
			}
			set, err := auth.NewKeySet(mint.Key())
			if err != nil {
				b.Fatal(err)
			}
			g := jwtGuard(b, func(o *auth.JWTOptions) { o.Keys, o.Cache = set, -1 })
			token := tokenOf(b, mint)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Check(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What is remembered costs a request next to no memory.
func TestJWTRememberedAllocations(t *testing.T) {
	g := jwtGuard(t, nil)
	call, ctx := jwtCall(protocols.HTTP, "Authorization: Bearer "+jwtGood(nil))
	if why := jwtTry(t, g, call, ctx); why != "" {
		t.Fatal(why)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := g.AdmitNow(ctx, call); err != nil {
			t.Error(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations, want at most one, of the field's name", n)
	}
}
