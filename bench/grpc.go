package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// The loads of this file use grpc-go's own client, because flow control counts
// in them: streams that go on, and large messages. What a client costs is not
// measured.

// pingPongs is how many streams play ping-pong at once.
const pingPongs = 16

// bigMessage is 64 KiB.
var bigMessage = strings.Repeat("0123456789abcdef", 64<<10/16)

// dialGRPC opens a connection of grpc-go's client.
func dialGRPC(h *house, addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(h.tls("h2"))))
}

// openUnary opens calls of that message: on each of conns connections one
// after the other.
func openUnary(conns int, message string) opener {
	return func(ctx context.Context, h *house, addr string) (load, error) {
		if h.token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", h.authorization())
		}
		return openClients(conns, func() (client, error) {
			conn, err := dialGRPC(h, addr)
			if err != nil {
				return nil, err
			}
			return &unary{ctx, conn, echov1.NewEchoClient(conn), message}, nil
		})
	}
}

type unary struct {
	ctx     context.Context
	conn    *grpc.ClientConn
	echo    echov1.EchoClient
	message string
}

func (u *unary) do(n int) error {
	for range n {
		res, err := u.echo.Unary(u.ctx, &echov1.UnaryRequest{Message: u.message})
		if err != nil {
			return err
		}
		if res.GetMessage() != u.message {
			return &answerError{res.GetMessage(), u.message}
		}
	}
	return nil
}

func (u *unary) close() { _ = u.conn.Close() }

// openPingPong opens streams, all on one connection.
func openPingPong(ctx context.Context, h *house, addr string) (load, error) {
	conn, err := dialGRPC(h, addr)
	if err != nil {
		return nil, err
	}
	return openClients(pingPongs, func() (client, error) {
		stream, err := echov1.NewEchoClient(conn).Bidi(ctx)
		if err != nil {
			return nil, err
		}
		return &pingPong{conn, stream}, nil
	})
}

// pingPong is a stream; an operation is a message and its answer.
type pingPong struct {
	conn   *grpc.ClientConn
	stream grpc.BidiStreamingClient[echov1.BidiRequest, echov1.BidiResponse]
}

func (p *pingPong) do(n int) error {
	for range n {
		if err := p.stream.Send(&echov1.BidiRequest{Message: message}); err != nil {
			return err
		}
		res, err := p.stream.Recv()
		if err != nil {
			return fmt.Errorf("ping-pong: %w", err)
		}
		if res.GetMessage() != message {
			return &answerError{res.GetMessage(), message}
		}
	}
	return nil
}

func (p *pingPong) close() { _ = p.conn.Close() } // the first of them ends all
