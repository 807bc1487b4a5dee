package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/ws"
)

// The handlers are the same on the port and on ports of their own, except
// that a WebSocket is read and written as its library wants it.

// newEngine is the REST side: a JSON answer, and an echo of the body.
func newEngine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.GET("/api/hello", func(c *gin.Context) {
		c.JSON(http.StatusOK, gin.H{"message": "Hello from HTTP"})
	})
	e.POST("/api/echo", func(c *gin.Context) {
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			c.AbortWithStatus(http.StatusBadRequest)
			return
		}
		c.Data(http.StatusOK, "application/json", body)
	})
	return e
}

// newApp is the server behind an edge that is not gRPC: REST, bodies of 64 KiB, and WebSocket.
func newApp() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", newEngine())
	mux.HandleFunc("GET /api/big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(bigMessage)))
		_, _ = io.WriteString(w, bigMessage)
	})
	mux.HandleFunc("POST /api/sink", func(w http.ResponseWriter, r *http.Request) {
		sum := crc32.NewIEEE()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, sunk(n, sum.Sum32()))
	})
	mux.Handle("/ws", gorillaEcho())
	mux.Handle("/raw", gorillaEcho())
	return mux
}

// sunk is what the server says of a body.
func sunk(n int64, sum uint32) string { return fmt.Sprintf("%d bytes, CRC %08x", n, sum) }

// echo is the gRPC side.
type echo struct{ echov1.UnimplementedEchoServer }

func (echo) Unary(_ context.Context, req *echov1.UnaryRequest) (*echov1.UnaryResponse, error) {
	return &echov1.UnaryResponse{Message: req.GetMessage()}, nil
}

// Bidi answers each message with itself.
func (echo) Bidi(stream grpc.BidiStreamingServer[echov1.BidiRequest, echov1.BidiResponse]) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := stream.Send(&echov1.BidiResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
}

// echoSocket is the WebSocket side on the port.
func echoSocket(_ context.Context, c *ws.Conn) error {
	for {
		typ, msg, err := c.Read()
		if err != nil {
			return err
		}
		if err := c.Write(typ, msg); err != nil {
			return err
		}
	}
}

// gorillaEcho is the WebSocket side with gorilla as its documentation has it:
// default buffers, no deadlines, no pings.
func gorillaEcho() http.Handler {
	var up websocket.Upgrader
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			typ, msg, err := c.ReadMessage()
			if err != nil {
				return
			}
			if err := c.WriteMessage(typ, msg); err != nil {
				return
			}
		}
	})
}
