package client

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// GRPC gives a connection whose calls carry the token. A unary call that ends with
// UNAUTHENTICATED is made once more with a newer token. A stream is not: its caller
// opens another, which has the newer token.
//
// It pings as often as oneport's port allows (at least 10 s between pings), and waits
// between tries to connect as a socket does, but for the first.
func (c *Client) GRPC() grpc.ClientConnInterface { return c.grpc }

func (c *Client) newGRPC() (err error) {
	secure, target := insecure.NewCredentials(), "dns:///"+c.opts.Addr
	if !c.opts.Plaintext {
		secure = credentials.NewTLS(c.tlsFor())
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pongWithin}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 2, Jitter: 0.5, MaxDelay: 30 * time.Second},
			MinConnectTimeout: shakeWithin,
		}),
	}
	if c.opts.Dial != nil {
		target = "passthrough:///" + c.opts.Addr
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return c.dialAddr(ctx, "tcp", c.opts.Addr)
		}))
	}
	if c.tokens.fetch != nil {
		opts = append(opts, grpc.WithPerRPCCredentials((*perRPC)(c)), grpc.WithChainUnaryInterceptor(c.unary), grpc.WithChainStreamInterceptor(c.stream))
	}
	c.grpc, err = grpc.NewClient(target, append(opts, c.opts.GRPC...)...)
	return err
}

// usedToken is the key of where perRPC notes the token that a call has got.
type usedToken struct{}

// perRPC is a Client as credentials.PerRPCCredentials.
type perRPC Client

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (p *perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get("authorization")) > 0 {
		return nil, nil //nolint:nilnil // the caller has one of its own
	}
	token, err := p.tokens.get(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if used, ok := ctx.Value(usedToken{}).(*tokenOf); ok {
		used.set(token)
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (p *perRPC) RequireTransportSecurity() bool { return !p.opts.Plaintext }

func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	used := new(tokenOf)
	ctx = context.WithValue(ctx, usedToken{}, used)
	err := invoke(ctx, method, req, reply, cc, opts...)
	if !c.renewed(ctx, err, used) {
		return err
	}
	if err = invoke(ctx, method, req, reply, cc, opts...); status.Code(err) == codes.Unauthenticated {
		c.tokens.doubt()
	}
	return err
}

// renewed reports whether err was for a token that has a successor now.
func (c *Client) renewed(ctx context.Context, err error, used *tokenOf) bool {
	old := used.get()
	if status.Code(err) != codes.Unauthenticated || old == "" {
		return false
	}
	token, err := c.tokens.replace(ctx, old)
	return err == nil && token != old
}

func (c *Client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	used := new(tokenOf)
	ctx = context.WithValue(ctx, usedToken{}, used)
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &renewing{ClientStream: s, c: c, used: used}, nil
}

// renewing is a stream whose end may say that its token is not good any longer.
type renewing struct {
	grpc.ClientStream

	c    *Client
	used *tokenOf
}

// RecvMsg implements grpc.ClientStream.
func (s *renewing) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && status.Code(err) == codes.Unauthenticated {
		s.c.tokens.forget(s.used.get()) // the stream's context has ended: the next call fetches one
	}
	return err
}
