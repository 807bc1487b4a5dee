package admin

import (
	"net/url"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// Whatever a query says, it is a request or refused as one.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "state=idle&limit=3", "every=1s&sort=calls", "filter=x", "limit=1e3", "page=%ff", "remote=::/0", "every=-999999999999s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		query, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		for _, req := range []proto.Message{new(adminv1.ListConnectionsRequest), new(adminv1.WatchConnectionsRequest), new(adminv1.ListRoutesRequest)} {
			if err := fromQuery(query, req); err != nil {
				if status.Code(err) != codes.InvalidArgument {
					t.Fatal(err)
				}
				continue
			}
			if _, err := proto.Marshal(req); err != nil {
				t.Fatal(err)
			}
			if l, ok := req.(*adminv1.ListConnectionsRequest); ok {
				_, _ = compile(l.GetFilter()) // it must not panic
			}
		}
	})
}
