package router_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-edge/oneport/oneporttest"
	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router"
)

// fieldsServer answers with the fields it was sent, sorted, each in a line, and speaks
// HTTP/1.1 and HTTP/2.
func fieldsServer(t *testing.T) string {
	t.Helper()
	ln := localhost(t)
	protos := new(http.Protocols)
	protos.SetHTTP1(true)
	protos.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protos, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for name, values := range r.Header {
			for _, v := range values {
				lines = append(lines, name+": "+v)
			}
		}
		slices.Sort(lines)
		_, _ = io.WriteString(w, r.RequestURI+"\n"+strings.Join(lines, "\n")+"\n")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// rawHTTP2 sends a request with these fields, in this order, and gives the answer.
func rawHTTP2(t *testing.T, port *oneporttest.Port, path string, fields ...string) string {
	t.Helper()
	c := port.DialTLS("h2")
	defer c.Close()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	method := "GET"
	if slices.Contains(fields, "content-type") {
		method = "POST"
	}
	all := append([]string{":method", method, ":scheme", "https", ":authority", "oneport.test", ":path", path}, fields...)
	for i := 0; i < len(all); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
	status, body := "", ""
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			status = fr.PseudoValue("status")
		case *http2.DataFrame:
			body += string(fr.Data())
		case *http2.RSTStreamFrame:
			return fmt.Sprint("reset ", fr.ErrCode)
		}
		if fr.Header().StreamID == 1 && fr.Header().Flags.Has(http2.FlagDataEndStream) {
			return status + " " + body
		}
	}
}

// rawHTTP1 sends a head, and gives the answer.
func rawHTTP1(t *testing.T, port *oneporttest.Port, head string) string {
	t.Helper()
	c := port.DialTLS("http/1.1")
	defer c.Close()
	_, _ = io.WriteString(c, head)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(b))
}

// What a guard sets for a server reaches it alone: not beside what the client says twice,
// nor beside a name that CGI and WSGI take for the same one, nor taken out by Connection.
func TestNobodySpoofsWhatGuardsSet(t *testing.T) {
	guard := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		call.Identify(&protocols.Identity{Subject: "alice", By: "test"})
		call.Hand("X-Plan", "gold")
		call.Hand("X-Secret", "")
		return ctx, nil
	})
	addr := fieldsServer(t)
	for _, scheme := range []string{"http", "h2c"} {
		srv := newServer()
		srv.Routes = []router.Route{{Path: "/", To: reach(t, scheme+"://"+addr, nil), Guards: []protocols.Guard{guard}}}
		port := oneporttest.Listen(t, srv)
		check := func(version, got string) {
			t.Helper()
			var plans, users []string
			for line := range strings.SplitSeq(got, "\n") {
				name, value, _ := strings.Cut(line, ": ")
				switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
				case "x-plan":
					plans = append(plans, line)
				case "x-user-id":
					users = append(users, line)
				case "x-secret":
					t.Errorf("%s to %s: the server got %s", version, scheme, line)
				case "traceparent", "x-request-id":
					if strings.Contains(value, "evil") || strings.Contains(value, "ffffffffffffffff") {
						t.Errorf("%s to %s: the server got %s", version, scheme, line)
					}
				}
			}
			if fmt.Sprint(plans) != "[X-Plan: gold]" || fmt.Sprint(users) != "[X-User-Id: alice]" {
				t.Errorf("%s to %s: the server got %v, %v of\n%s", version, scheme, plans, users, got)
			}
		}
		const trace1, trace2 = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-ffffffffffffffffffffffffffffffff-b7ad6b7169203331-01"
		check("HTTP/2", rawHTTP2(t, port, "/", "x-plan", "a", "x-plan", "platinum", "x_plan", "platinum", "x-secret", "1", "x_secret", "1",
			"x-request-id", "evil1", "x-request-id", "evil2", "traceparent", trace1, "traceparent", trace2))
		check("HTTP/1.1", rawHTTP1(t, port, "GET / HTTP/1.1\r\nHost: oneport.test\r\nX-Plan: a\r\nX-Plan: platinum\r\nX_Plan: platinum\r\n"+
			"X-Secret: 1\r\nX_Secret: 1\r\nX-Request-Id: evil1\r\nX-Request-Id: evil2\r\nTraceparent: "+trace1+"\r\nTraceparent: "+trace2+
			"\r\nConnection: close, X-User-Id, X-Plan\r\n\r\n"))
	}
}

// What a client says of itself in trailers goes no further either: servers may merge them
// into the header.
func TestNobodySpoofsByTrailers(t *testing.T) {
	ln := localhost(t)
	protos := new(http.Protocols)
	protos.SetHTTP1(true)
	protos.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protos, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %v", body, r.Trailer)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	guard := protocols.GuardFunc(func(ctx context.Context, call *protocols.Call) (context.Context, error) {
		call.Hand("X-Plan", "gold")
		return ctx, nil
	})
	names := []string{
		"X-User-Id", "X_user_id", "X-Request-Id", "X-Real-Ip", "X-Forwarded-For", "X-Forwarded_groups", "Forwarded", "X-Plan", "X_Plan", "Traceparent",
	}
	for _, scheme := range []string{"http", "h2c"} {
		edge := newServer()
		edge.Routes = []router.Route{{Path: "/", To: reach(t, scheme+"://"+ln.Addr().String(), nil), Guards: []protocols.Guard{guard}}}
		port := oneporttest.Listen(t, edge)
		for _, sum := range [][]string{nil, {"X-Sum"}} { // with another trailer, and without
			trailers := slices.Concat(names, sum)
			got := rawTrailers(t, port, trailers)
			if !strings.HasPrefix(got, "200 body ") || strings.Count(got, "evil") != len(sum) {
				t.Errorf("HTTP/2 to %s, with %q: %s", scheme, sum, got)
			}
			got = rawHTTP1(t, port, "POST / HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: "+
				strings.Join(trailers, ", ")+"\r\n\r\n4\r\nbody\r\n0\r\n"+strings.Join(trailers, ": evil\r\n")+": evil\r\n\r\n")
			if scheme == "h2c" {
				sum = nil // net/http's client there takes none along
			}
			if !strings.HasPrefix(got, "200 body ") || strings.Count(got, "evil") != len(sum) {
				t.Errorf("HTTP/1.1 to %s, with %q: %s", scheme, sum, got)
			}
		}
	}
}

// rawTrailers posts "body" over HTTP/2 with trailers of these names, and gives the answer.
func rawTrailers(t *testing.T, port *oneporttest.Port, names []string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, port.URL("/"), io.MultiReader(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{}
	for _, name := range names {
		req.Trailer.Set(name, "evil")
	}
	res, err := port.HTTP2().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(res.StatusCode, " ", string(b))
}

// A "#", which servers read as the end of a target or as a part of it, does not lead
// a request past the guards of the path that a server makes of it.
func TestNumberSignIsEscaped(t *testing.T) {
	refuse := protocols.GuardFunc(func(ctx context.Context, _ *protocols.Call) (context.Context, error) {
		return ctx, &protocols.Refusal{Reason: protocols.ReasonForbidden}
	})
	got := make(chan string, 1)
	sock := serveRaw(t, func(c net.Conn, _ *bufio.Reader, r *http.Request) {
		got <- r.RequestURI
		_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	})
	addr := fieldsServer(t)
	srv := newServer()
	guards := []protocols.Guard{refuse}
	web := reach(t, "h2c://"+addr, nil)
	srv.Routes = []router.Route{
		{Path: "/admin/", To: web, Guards: guards},
		{Path: "/", To: web},
		{WebSocket: "/admin/", To: reach(t, "http://"+sock, nil), Guards: guards},
		{WebSocket: "/", To: reach(t, "http://"+sock, nil)},
	}
	port := oneporttest.Listen(t, srv)
	if res := rawHTTP2(t, port, "/admin/#/../../public"); strings.HasPrefix(res, "200") && strings.Contains(strings.SplitN(res, "\n", 2)[0], "#") {
		t.Errorf("HTTP/2: the server got %q", res)
	}
	if res := rawHTTP1(t, port, "GET /admin/#/../../public HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\n\r\n"); strings.Contains(strings.SplitN(res, "\n", 2)[0], "#") {
		t.Errorf("HTTP/1.1: the server got %q", res)
	}
	rawHTTP1(t, port, "GET /admin/#/../../public HTTP/1.1\r\nHost: oneport.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	select {
	case uri := <-got:
		if strings.Contains(uri, "#") {
			t.Errorf("WebSocket: the server got %q", uri)
		}
	default: // refused
	}
}

// What is a gRPC call to a server is one here: its route's guards are asked.
func TestOneContentType(t *testing.T) {
	var asked atomic.Int64
	addr := fieldsServer(t)
	srv := newServer()
	up := reach(t, "h2c://"+addr, nil)
	srv.Routes = []router.Route{{GRPC: "*", To: up, Guards: []protocols.Guard{tokens(&asked)}}, {Path: "/", To: up}}
	port := oneporttest.Listen(t, srv)
	for _, kinds := range [][2]string{{"application/grpc", "text/plain"}, {"text/plain", "application/grpc"}} {
		if got := rawHTTP2(t, port, "/pkg.Service/Method", "content-type", kinds[0], "content-type", kinds[1]); strings.HasPrefix(got, "200") {
			t.Errorf("HTTP/2, %v: the server got %s", kinds, got)
		}
		if got := rawHTTP1(t, port, "POST /pkg.Service/Method HTTP/1.1\r\nHost: oneport.test\r\nContent-Length: 0\r\nContent-Type: "+kinds[0]+
			"\r\nContent-Type: "+kinds[1]+"\r\nConnection: close\r\n\r\n"); strings.HasPrefix(got, "200") {
			t.Errorf("HTTP/1.1, %v: the server got %s", kinds, got)
		}
	}
}

// Java's servers take parameters out of a path's elements before they look for "..".
func TestDotsWithParametersAreRefused(t *testing.T) {
	srv := newServer()
	srv.Routes = []router.Route{{Path: "/", To: reach(t, "http://"+fieldsServer(t), nil)}}
	port := oneporttest.Listen(t, srv)
	for path, want := range map[string]string{
		"/x/..;/admin/": "400", "/x/..;a=b/admin/": "400", "/x/.%2e;/admin/": "400", "/.;/admin/": "400", "/x/%2e%2e%3b/admin/": "400",
		"/x;a=b/y": "200", "/x..;/y": "200", "/.x;/y": "200",
	} {
		if got := rawHTTP1(t, port, "GET "+path+" HTTP/1.1\r\nHost: oneport.test\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("HTTP/1.1, %s: %s, want %s", path, got, want)
		}
		if got := rawHTTP2(t, port, path); !strings.HasPrefix(got, want) {
			t.Errorf("HTTP/2, %s: %s, want %s", path, got, want)
		}
	}
}
