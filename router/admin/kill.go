package admin

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/protocols"
)

const (
	byOperator = "ended by an operator"

	leastRevoke = time.Second
	mostRevoke  = 24 * time.Hour
)

// Kill implements adminv1.AdminServer.
func (s *Service) Kill(ctx context.Context, req *adminv1.KillRequest) (*adminv1.KillResponse, error) {
	if _, user := req.GetWhat().(*adminv1.KillRequest_Identity); req.GetRevoke() != nil && !user {
		return nil, status.Error(codes.InvalidArgument, "revoke goes with identity")
	}
	switch what := req.GetWhat().(type) {
	case *adminv1.KillRequest_Connection:
		s.did(ctx, "kill", "connection", what.Connection)
		if !s.opts.Port.CloseConn(what.Connection) {
			return nil, status.Errorf(codes.NotFound, "there is no connection %q", what.Connection)
		}
		return &adminv1.KillResponse{Connections: 1}, nil
	case *adminv1.KillRequest_Identity:
		return s.killUser(ctx, what.Identity.GetSubject(), what.Identity.GetIssuer(), req)
	case *adminv1.KillRequest_Upstream:
		if what.Upstream == "" {
			return nil, status.Error(codes.InvalidArgument, "upstream: want its name")
		}
		// They are to come back: the server may be another by then.
		n := s.opts.Calls.End(&protocols.Refusal{Reason: protocols.ReasonOverloaded, Text: byOperator}, func(c *protocols.Call) bool {
			return destination(c).Upstream == what.Upstream
		})
		s.did(ctx, "kill", "upstream", what.Upstream, "calls", n)
		return &adminv1.KillResponse{Calls: int32(n)}, nil
	}
	return nil, status.Error(codes.InvalidArgument, "want one of connection, identity, upstream")
}

// killUser ends a user's calls.
func (s *Service) killUser(ctx context.Context, user, issuer string, req *adminv1.KillRequest) (*adminv1.KillResponse, error) {
	if user == "" {
		return nil, status.Error(codes.InvalidArgument, "identity: want a subject")
	}
	ended := 0
	all := func(*protocols.Call) bool { return true }
	if revoke := req.GetRevoke(); revoke != nil {
		d := revoke.AsDuration()
		switch {
		case revoke.CheckValid() != nil || d < leastRevoke || d > mostRevoke:
			return nil, status.Errorf(codes.InvalidArgument, "revoke: want from %v to %v", leastRevoke, mostRevoke)
		case s.opts.Revoker == nil:
			return nil, status.Error(codes.Unimplemented, "this port cannot revoke; without revoke the user's calls are ended")
		case issuer == "":
			return nil, status.Error(codes.InvalidArgument, `identity: revoke wants an issuer: the iss of a token, or "keys", "mtls" or "forward"`)
		}
		var err error // first: nothing must come in between
		if ended, err = s.opts.Revoker.Revoke(issuer, user, time.Now().Add(d)); err != nil {
			return nil, status.Error(codes.ResourceExhausted, err.Error())
		}
		all = func(c *protocols.Call) bool { return c.Protocol == protocols.HTTP } // the others have ended
	}
	ended += s.opts.Calls.End(&protocols.Refusal{Reason: protocols.ReasonForbidden, Text: byOperator}, func(c *protocols.Call) bool {
		return all(c) && isOf(c, user, issuer)
	})
	s.did(ctx, "kill", "subject", user, "issuer", issuer, "revoke", req.GetRevoke().AsDuration(), "calls", ended)
	return &adminv1.KillResponse{Calls: int32(ended)}, nil
}

// isOf reports whether a call is a user's. An empty issuer means any.
func isOf(c *protocols.Call, subject, issuer string) bool {
	id := c.Identity()
	return id != nil && id.Subject == subject && (issuer == "" || issuer == cmp.Or(id.Issuer, id.By))
}
