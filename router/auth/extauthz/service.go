package extauthz

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/oneport-edge/oneport/router/auth"
)

// maxAnswer is what an answer may have, in bytes.
const maxAnswer = 64 << 10

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// Options says where the service is.
type Options struct {
	// Target is where grpc.NewClient finds it: "127.0.0.1:9191", "unix:///run/authz.sock".
	Target string
	// TLS is how it is spoken to; nil means plaintext.
	TLS *tls.Config
	// Dial are further options for grpc.NewClient.
	Dial []grpc.DialOption
}

// Service is an [auth.Authority]. It has one connection, opened with the first call.
type Service struct{ conn *grpc.ClientConn }

// New checks the options; it does not connect yet.
func New(opts Options) (*Service, error) {
	if opts.Target == "" {
		return nil, errors.New("extauthz: no target")
	}
	creds := insecure.NewCredentials()
	if opts.TLS != nil {
		creds = credentials.NewTLS(opts.TLS)
	}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent("oneport"),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(), // the environment is for the process to read
		// By itself gRPC would wait for up to two minutes before it tries again, and nobody would be let in.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.ForceCodecV2(wire{})),
	}, opts.Dial...)
	conn, err := grpc.NewClient(opts.Target, dial...)
	if err != nil {
		return nil, fmt.Errorf("extauthz: %w", err)
	}
	return &Service{conn}, nil
}

// Close ends the connection, and the questions that are still open.
func (s *Service) Close() error { return s.conn.Close() }

// Ask implements [auth.Authority].
func (s *Service) Ask(ctx context.Context, q auth.Question) (auth.Verdict, error) {
	question := appendQuestion(nil, &q, time.Now())
	var answer []byte
	if err := s.conn.Invoke(ctx, checkMethod, &question, &answer); err != nil {
		return auth.Verdict{}, fmt.Errorf("extauthz: %w", err)
	}
	return parseAnswer(answer)
}

// wire is a codec for messages that are encoded already. Both sides are a *[]byte.
type wire struct{}

var _ encoding.CodecV2 = wire{}

// Name is that of the content type: what is sent are protocol buffers.
func (wire) Name() string { return "proto" }

func (wire) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("extauthz: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (wire) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("extauthz: cannot read into a %T", v)
	}
	*b = data.Materialize()
	return nil
}
