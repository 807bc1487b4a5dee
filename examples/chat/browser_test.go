//go:build clients

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/examples/chat/chatpb"
)

// serveAt serves a new room at addr until stop is called, which drains it.
func serveAt(t *testing.T, source certs.Source, addr string) (at string, stop func()) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer()
	srv.Certs, srv.Log = source, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	return ln.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

// Two people in Chromium see what they say, what comes by REST and gRPC, and
// come back by themselves when the server does.
func TestTwoBrowsers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	source := certs.Dev(t.TempDir())
	addr, stop := serveAt(t, source, "127.0.0.1:0")

	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := chatpb.NewFeedClient(cc)
	if _, err := client.Post(ctx, &chatpb.PostRequest{Name: "Gus", Text: "first"}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	feed := startWatch(t, client)

	node := exec.CommandContext(ctx, "node", "browser.mjs", "https://"+addr+"/", chromium)
	node.Stderr = t.Output()
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	var heard []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		heard = append(heard, lines.Text())
		if lines.Text() != "talked" {
			continue
		}
		for _, want := range []string{
			line(1, "said", "Gus", "first", "grpc"),
			line(2, "joined", "Ann", "", "websocket"),
			line(3, "joined", "Björn", "", "websocket"),
			line(4, "said", "Ann", "hello <b>there</b>", "websocket"),
			line(5, "said", "Björn", "hi", "websocket"),
			line(6, "said", "Cleo", "by REST", "http"),
		} {
			if got := feed.next().line(); got != want {
				t.Errorf("the feed saw %s, want %s", got, want)
			}
		}
		stop()
		_, stop = serveAt(t, source, addr)
	}
	if err := node.Wait(); err != nil || len(heard) != 2 || heard[1] != "done" {
		t.Errorf("the browsers: %v, after %q", err, heard)
	}
	stop()
}
