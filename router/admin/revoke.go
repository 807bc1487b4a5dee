package admin

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// mostRevocations bounds an answer: with names of a KiB it has the 4 MiB that gRPC clients take,
// and few names are longer than a hundred bytes.
const mostRevocations = 1000

// ListRevocations implements adminv1.AdminServer.
func (s *Service) ListRevocations(context.Context, *adminv1.ListRevocationsRequest) (*adminv1.ListRevocationsResponse, error) {
	if s.opts.Revocations == nil {
		return nil, errNotHere
	}
	all := s.opts.Revocations()
	return &adminv1.ListRevocationsResponse{Revocations: all[:min(len(all), mostRevocations)], Total: int32(len(all))}, nil
}

// Unrevoke implements adminv1.AdminServer.
func (s *Service) Unrevoke(ctx context.Context, req *adminv1.UnrevokeRequest) (*adminv1.UnrevokeResponse, error) {
	switch {
	case s.opts.Revoker == nil:
		return nil, errNotHere
	case req.GetSubject() == "" || req.GetIssuer() == "":
		return nil, status.Error(codes.InvalidArgument, "want a subject and an issuer, as the list of revocations has them")
	case !s.opts.Revoker.Unrevoke(req.GetIssuer(), req.GetSubject()):
		return nil, status.Errorf(codes.NotFound, "%q of %q is not revoked", req.GetSubject(), req.GetIssuer())
	}
	s.did(ctx, "unrevoke", "subject", req.GetSubject(), "issuer", req.GetIssuer())
	return new(adminv1.UnrevokeResponse), nil
}
