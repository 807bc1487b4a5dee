package protocols_test

import (
	"context"
	"testing"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

func TestInBandInLists(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		fields []string
		offers bool
		rest   string
	}{
		{nil, false, ""},
		{[]string{""}, false, ""},
		{[]string{"oneport.auth.v1"}, true, ""},
		{[]string{"chat,\toneport.auth.v1 , v2"}, true, "chat, v2"},
		{[]string{"chat", " oneport.auth.v1", "v2,,"}, true, "chat, v2"},
		{[]string{"oneport.auth.v1, oneport.auth.v1"}, true, ""},
		{[]string{"Oneport.auth.v1, oneport.auth.v11, xoneport.auth.v1"}, false, "Oneport.auth.v1, oneport.auth.v11, xoneport.auth.v1"},
	} {
		if got := protocols.OffersInBand(tc.fields); got != tc.offers {
			t.Errorf("%q: %t", tc.fields, got)
		}
		if got := protocols.WithoutInBand(tc.fields); got != tc.rest {
			t.Errorf("%q: %q is left", tc.fields, got)
		}
	}
}

func TestCallRenew(t *testing.T) {
	t.Parallel()
	call := new(protocols.Call)
	if _, why := call.Renew(t.Context(), "x"); why != protocols.NotRenewable {
		t.Errorf("without a guard: %q", why)
	}
	end := time.Unix(1e9, 0)
	call.OnRenew(func(_ context.Context, token string) (time.Time, protocols.NotRenewed) {
		if token != "x" {
			return time.Time{}, protocols.NotRenewedToken
		}
		return end, ""
	})
	if got, why := call.Renew(t.Context(), "x"); !got.Equal(end) || why != "" {
		t.Errorf("%s, %q", got, why)
	}
	call.Finish(protocols.Result{})
	if _, why := call.Renew(t.Context(), "x"); why != protocols.NotRenewable {
		t.Errorf("when it is over: %q", why)
	}
}
