package protocols_test

import (
	"encoding/base64"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-edge/oneport/protocols"
)

// What is written by hand is what the library for it reads, and nothing else.
func TestGRPCDetails(t *testing.T) {
	for _, r := range []protocols.Refusal{
		{Reason: protocols.ReasonTooMany, RetryAfter: 1},
		{Reason: protocols.ReasonTooMany, RetryAfter: time.Second},
		{Reason: protocols.ReasonOverloaded, RetryAfter: 90*time.Minute + 1500*time.Millisecond, Text: "grüße, 50 %"},
		{Reason: protocols.ReasonOverloaded, RetryAfter: 1<<63 - 1, Text: "not UTF-8: \xff"},
	} {
		b, err := base64.RawStdEncoding.DecodeString(r.GRPCDetails())
		if err != nil {
			t.Fatal(err)
		}
		var got spb.Status
		if err := (proto.UnmarshalOptions{DiscardUnknown: false}).Unmarshal(b, &got); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		code, _ := r.GRPC()
		if int(got.GetCode()) != code || len(got.GetDetails()) != 1 || len(got.ProtoReflect().GetUnknown()) > 0 {
			t.Fatalf("%v: %v", r, &got)
		}
		detail, err := got.GetDetails()[0].UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		info, ok := detail.(*errdetails.RetryInfo)
		if !ok || info.GetRetryDelay().AsDuration() != r.RetryAfter {
			t.Errorf("%v: %v", r, detail)
		}
		if again, err := proto.Marshal(&got); err != nil || len(again) != len(b) {
			t.Errorf("%v: %d bytes, the library writes %d: %v", r, len(b), len(again), err)
		}
	}
	if got := (&protocols.Refusal{Reason: protocols.ReasonTooMany}).GRPCDetails(); got != "" {
		t.Errorf("a refusal that does not say when: %s", got)
	}
}
