package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/oneport-edge/oneport/client"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
)

// login stands for how your program gets a token.
func login(context.Context) (string, error) {
	token, err := os.ReadFile("token")
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("logged out: %w", client.ErrNoToken) // no use in trying again
	}
	return string(token), err
}

// One address, one token, three protocols.
func ExampleNew() {
	c, err := client.New(client.Options{Addr: "api.example.com:443", Token: login})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	res, err := c.HTTP().Get("https://api.example.com/api/hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()

	answer, err := echov1.NewEchoClient(c.GRPC()).Unary(context.Background(), &echov1.UnaryRequest{Message: "hello"})
	fmt.Println(res.Status, answer.GetMessage(), err)
}

// A WebSocket that comes back by itself, says what it must on each connection, and tells
// of its state.
func ExampleClient_WebSocket() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := client.New(client.Options{Addr: "api.example.com:443", Token: login})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	s := c.WebSocket("/ws", client.SocketOptions{
		Backoff: client.Backoff{Tries: -1}, // for as long as the program runs
		OnConnect: func(_ context.Context, write func(client.Kind, []byte) error) error {
			return write(client.Text, []byte(`{"join":"lobby"}`))
		},
	})
	s.OnState(func(e client.Event) {
		slog.Info("socket", "state", e.State, "try", e.Try, "again_in", e.Delay, "err", e.Err)
	})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for {
		m, err := s.Read(ctx)
		if err != nil {
			break
		}
		fmt.Printf("%s\n", m.Data)
	}
	fmt.Println(<-ended)
}

// Channels of a broadcast, each publication once, also those of the time without a connection.
func ExampleClient_Subscribe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := client.New(client.Options{Addr: "api.example.com:443", Token: login})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	s, err := c.Subscribe([]string{"news:today"}, client.SubscribeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for {
		d, err := s.Next(ctx)
		if err != nil {
			break
		}
		if d.Lost {
			fmt.Println("ask anew for what", d.Channel, "shows")
		}
		if d.Data != nil {
			fmt.Printf("%s at %d: %s\n", d.Channel, d.Position.Offset, d.Data)
		}
	}
	fmt.Println(<-ended)
}
