package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/edge"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/config"
)

// The servers. All but the first have a TLS port of their own, as a developer
// would write it who has read no further than the example.
const (
	onPort  = "port" // router.Server with everything
	ownHTTP = "http" // net/http and Gin
	ownGRPC = "grpc" // grpc.Server
	ownWS   = "ws"   // net/http and gorilla
)

// serve is the life of a server process: it says where it listens, answers
// questions about itself, a line each, and ends when nobody asks any more.
func serve(ctx context.Context, o *options, questions io.Reader, answers io.Writer) error {
	if o.heap {
		runtime.MemProfileRate = 1 // every allocation; before any that matters
	}
	source := certs.Dev(o.dir)
	if err := source.Load(); err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fan, err := newFanout(o.serve)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		if fan != nil {
			failed <- fan.serve(ctx, source, ln)
			return
		}
		failed <- serveOn(ctx, o, source, ln)
	}()
	if _, err := fmt.Fprintln(answers, ln.Addr()); err != nil {
		return err
	}
	go func() { failed <- answer(ctx, o, fan, questions, answers) }()
	return <-failed
}

// serveOn serves ln until the process ends.
func serveOn(ctx context.Context, o *options, source *certs.DevSource, ln net.Listener) error {
	switch o.serve {
	case onPort:
		srv := &router.Server{
			Certs: source,
			HTTP:  newEngine(),
			Log:   quiet(),
		}
		echov1.RegisterEchoServer(srv, echo{})
		srv.WebSocket("/ws", echoSocket)
		return srv.Serve(ctx, ln)
	case ownHTTP:
		srv := &http.Server{Handler: newEngine(), TLSConfig: certs.Config(source, certs.Options{})}
		return srv.ServeTLS(ln, "", "")
	case ownGRPC:
		srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(certs.Config(source, certs.Options{}))))
		echov1.RegisterEchoServer(srv, echo{})
		return srv.Serve(ln)
	case onGreeter:
		srv := grpc.NewServer()
		echov1.RegisterEchoServer(srv, echo{})
		return srv.Serve(ln)
	case onApp:
		return (&http.Server{Handler: newApp()}).Serve(ln)
	case onOneport, onBare, onGuarded, onQuiet, onWatched: // for profiles alone; without it is the binary
		cfg, err := config.Load(o.config)
		if err != nil {
			return err
		}
		e, err := edge.Serve(cfg, quiet(), nil)
		if err != nil {
			return err
		}
		defer e.Close()
		if err := e.LogTo(os.Stderr); err != nil {
			return err
		}
		if cfg.Admin != nil {
			admin, err := edge.NewAdmin(edge.AdminOptions{Admin: *cfg.Admin, Edge: e, TokenDir: o.dir, Log: quiet()})
			if err != nil {
				return err
			}
			if err := admin.Start(ctx); err != nil {
				return err
			}
			defer admin.Stop()
		}
		return e.Server.Serve(ctx, ln)
	case ownWS:
		mux := http.NewServeMux()
		mux.Handle("/ws", gorillaEcho())
		srv := &http.Server{Handler: mux, TLSConfig: certs.Config(source, certs.Options{})}
		return srv.ServeTLS(ln, "", "")
	}
	return fmt.Errorf("no server is called %q", o.serve)
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// state is what a server knows of itself.
type state struct {
	CPU        int64  `json:"cpu"`   // user and system time so far, in nanoseconds
	RSS        int64  `json:"rss"`   // resident memory, in bytes
	Heap       int64  `json:"heap"`  // Go's HeapInuse
	Stack      int64  `json:"stack"` // Go's StackInuse
	Goroutines int    `json:"goroutines"`
	Clients    int    `json:"clients,omitempty"` // of a server that sends to many
	Slow       int64  `json:"slow,omitempty"`    // that it has closed because they did not keep up
	Err        string `json:"err,omitempty"`
}

// Questions.
const (
	askCPU     = "cpu"     // how much CPU so far
	askGC      = "gc"      // collect garbage first, so that nobody pays for the last one
	askMemory  = "memory"  // how much memory, as it is
	askFreed   = "freed"   // how much, after all garbage went back to the system
	askProfile = "profile" // from here on, profile the CPU
	askHeap    = "heap"    // write a heap profile
	askClients = "clients" // how many there are, and were too slow
)

func answer(ctx context.Context, o *options, fan fanout, questions io.Reader, answers io.Writer) error {
	out := json.NewEncoder(answers)
	profiling := false
	defer func() {
		if profiling {
			pprof.StopCPUProfile()
		}
	}()
	for in := bufio.NewScanner(questions); in.Scan(); {
		var s state
		var err error
		question := in.Text()
		if strings.HasPrefix(question, askSay) {
			s.Err = textOf(answerSay(ctx, fan, question))
			question = askClients
		}
		switch question {
		case askClients:
			if fan != nil {
				s.Clients, s.Slow = fan.stats()
			}
		case askCPU:
			s.CPU, err = cpu()
		case askGC:
			runtime.GC()
		case askMemory:
			err = s.memory()
		case askFreed:
			runtime.GC() // twice: the first one leaves what pools hold
			debug.FreeOSMemory()
			err = s.memory()
		case askProfile:
			if err = startProfile(o); err == nil {
				profiling = true
			}
		case askHeap:
			err = writeHeap(o)
		default:
			err = fmt.Errorf("no such question: %q", question)
		}
		if err != nil {
			s.Err = err.Error()
		}
		if err := out.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

// textOf is what an error says; "" of none.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *state) memory() error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Stack, s.Goroutines = int64(m.HeapInuse), int64(m.StackInuse), runtime.NumGoroutine()
	var err error
	s.RSS, err = vmRSS("/proc/self/status")
	return err
}

// startProfile begins a CPU profile in a file named after the server and its
// process: every round has processes of its own, and go tool pprof adds them up.
func startProfile(o *options) error {
	f, err := os.Create(filepath.Join(o.profile, fmt.Sprintf("%s-%d.cpu", o.serve, os.Getpid())))
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f) // closed with the process
}

func writeHeap(o *options) error {
	f, err := os.Create(filepath.Join(o.profile, o.serve+".heap"))
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}
