package console

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// Client asks an admin API. It is safe for concurrent use.
type Client struct {
	addr, token string
	conn        *grpc.ClientConn
	api         adminv1.AdminClient
}

// mostMessage bounds an answer: 1000 connections with 20 calls each may have some MiB.
const mostMessage = 32 << 20

// Dial gives a client of the API at host:port, in plaintext, as the API is. token may be "";
// then nothing can be changed. Nobody is asked yet. The caller closes it.
func Dial(addr, token string) (*Client, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("admin address %q: want host:port, as 127.0.0.1:9901", addr)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostMessage)))
	if err != nil {
		return nil, err
	}
	return &Client{addr: addr, token: token, conn: conn, api: adminv1.NewAdminClient(conn)}, nil
}

// Close ends it.
func (c *Client) Close() error { return c.conn.Close() }

// with gives a call its token.
func (c *Client) with(ctx context.Context) context.Context {
	if c.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
}

// explain is an error in words that help. Nil stays nil.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	text := Clean(st.Message())
	code := st.Code()
	if code == codes.Unavailable || code == codes.Unimplemented && text != "this port does not have that" {
		return fmt.Errorf("there is no admin API at %s: %s; --admin says where it is, as admin.listen in the server's file does", c.addr, text)
	}
	if code == codes.Unauthenticated {
		return errors.New(text + "; --token-file names the file with the token, which the server's log says, or admin.token_file")
	}
	return errors.New(text)
}
