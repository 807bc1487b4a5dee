package edge

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"

	"github.com/oneport-edge/oneport/certs"
	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/rest"
	"github.com/oneport-edge/oneport/protocols/ws"
	"github.com/oneport-edge/oneport/router"
	"github.com/oneport-edge/oneport/router/accesslog"
)

// DemoOptions configures Demo.
type DemoOptions struct {
	Listen    string         // the TLS port
	Plaintext string         // a plaintext port beside it; "" for none
	CertDir   string         // where the development certificates are kept
	Hosts     []string       // names the certificate is for, besides localhost
	Log       *slog.Logger   // nil for slog.Default
	Access    *accesslog.Log // nil for no access lines
	Redirect  bool           // plaintext HTTP on the TLS port: 308 instead of 400
}

// demoFiles is the page and what it loads.
//
//go:embed demo
var demoFiles embed.FS

// Demo gives a server with the demo's endpoints in all three protocols. A
// client certificate of the development CA is optional, and shown by whoami.
func Demo(opts DemoOptions) (*router.Server, error) {
	files, err := fs.Sub(demoFiles, "demo")
	if err != nil {
		return nil, err
	}
	source := certs.Dev(opts.CertDir, opts.Hosts...)
	if err := source.Load(); err != nil {
		return nil, err
	}
	srv := &router.Server{
		Listeners:     []router.Listener{{Addr: opts.Listen}},
		Certs:         source,
		ClientAuth:    certs.ClientAuth{CAs: certs.CAFile(source.CACert())},
		AnyHost:       true, // a certificate shows in whoami, and opens nothing
		HTTP:          demoHTTP(files, source.CACert()),
		RedirectPlain: opts.Redirect,
		Log:           opts.Log,
		Observers:     observers(opts.Access),
	}
	if opts.Plaintext != "" {
		srv.Listeners = append(srv.Listeners, router.Listener{Addr: opts.Plaintext, Plaintext: true})
	}
	echov1.RegisterEchoServer(srv, echo{})
	srv.WebSocket("/ws", echoSocket)
	srv.WebSocket("/ws/whoami", whoamiSocket)
	return srv, nil
}

// echoMostBody bounds what /api/echo sends back.
const echoMostBody = 16 << 20

// pagePolicy lets the page load its own script and style, and talk to the port
// that served it. Its icon is a data URI.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func demoHTTP(files fs.FS, caCert string) http.Handler {
	e := rest.NewEngine()
	e.Get("/api/hello", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, []byte(`{"message":"Hello from HTTP"}`))
	})
	e.Get("/api/whoami", func(w http.ResponseWriter, r *http.Request) {
		who, err := whoamiJSON(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, who)
	})
	e.Any("/api/echo", func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", cmp.Or(r.Header.Get("Content-Type"), "application/octet-stream"))
		// What a stranger wrote must never run as a page of this origin.
		h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
		h.Set("X-Content-Type-Options", "nosniff")
		// Read first, answer then: a client that sends all before it reads
		// would wait for us, and we for it.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, echoMostBody))
		var tooBig *http.MaxBytesError
		switch {
		case errors.As(err, &tooBig):
			http.Error(w, fmt.Sprintf("the body is larger than %d bytes", echoMostBody), http.StatusRequestEntityTooLarge)
		case err != nil:
			panic(http.ErrAbortHandler) // the client has left
		default:
			_, _ = w.Write(body) // if it fails, there is nobody to tell
		}
	})
	e.Get("/ca.crt", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-x509-ca-cert")
		http.ServeFile(w, r, caCert)
	})
	pages := http.FileServerFS(files)
	for _, path := range []string{"/", "/demo.js", "/demo.css"} {
		e.Get(path, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Security-Policy", pagePolicy)
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cache-Control", "no-cache") // the next build has another page
			pages.ServeHTTP(w, r)
		})
	}
	return e
}

func writeJSON(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client has left: nothing to tell
}

// echoSocket answers every message with itself.
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

// whoamiSocket sends one message and ends the session.
func whoamiSocket(ctx context.Context, c *ws.Conn) error {
	who, err := whoamiJSON(ctx)
	if err != nil {
		return err
	}
	return c.Write(ws.Text, who)
}
