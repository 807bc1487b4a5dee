package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/router/admin/page"
)

const (
	apiPrefix = "/api/v1/"
	mostBody  = 64 << 10
)

// HTTP is the API as JSON over REST, with probes, and profiles if they are on.
func (s *Service) HTTP() http.Handler {
	mux := http.NewServeMux()
	ui := page.Handler()
	mux.Handle("GET /{$}", forBrowsers(ui))
	mux.Handle("GET "+page.Prefix, ui)
	mux.Handle("GET "+apiPrefix+"connections", read(s.ListConnections))
	mux.HandleFunc("GET "+apiPrefix+"connections/watch", s.watchHTTP)
	mux.Handle("GET "+apiPrefix+"revocations", read(s.ListRevocations))
	mux.Handle("GET "+apiPrefix+"routes", read(s.ListRoutes))
	mux.Handle("GET "+apiPrefix+"upstreams", read(s.ListUpstreams))
	mux.Handle("GET "+apiPrefix+"certificates", read(s.ListCertificates))
	mux.Handle("GET "+apiPrefix+"limits", read(s.ListLimits))
	mux.Handle("GET "+apiPrefix+"config", read(s.GetConfig))
	mux.Handle("GET "+apiPrefix+"log-level", read(s.GetLogLevel))
	mux.Handle("GET "+apiPrefix+"health", read(s.GetHealth))
	mux.Handle("GET "+apiPrefix+"stats", read(s.GetStats))
	mux.Handle("POST "+apiPrefix+"kill", change(s.Kill))
	mux.Handle("POST "+apiPrefix+"unrevoke", change(s.Unrevoke))
	mux.Handle("POST "+apiPrefix+"plan", change(s.Plan))
	mux.Handle("POST "+apiPrefix+"reload", change(s.Reload))
	mux.Handle("POST "+apiPrefix+"drain", change(s.Drain))
	mux.Handle("POST "+apiPrefix+"log-level", change(s.SetLogLevel))
	s.probes(mux)
	if s.opts.Profiles {
		s.profiles(mux)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What clients have chosen stands in answers: no browser is to read a page into it.
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// forBrowsers serves the page to those that ask for HTML, and to others a list of what there is.
func forBrowsers(ui http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			ui.ServeHTTP(w, r)
			return
		}
		index(w, r)
	})
}

func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "oneport admin\n\n"+ // the client has left: nothing to tell
		"GET  / in a browser: the page\n"+
		"GET  /healthz /readyz /readyz?verbose /metrics\n"+
		"GET  /api/v1/ connections connections/watch revocations routes upstreams certificates limits config log-level health stats\n"+
		"POST /api/v1/ kill unrevoke plan reload drain log-level   (with the token)\n"+
		"gRPC oneport.admin.v1.Admin\n")
}

// message is a request or an answer, as a pointer to what T is.
type message[T any] interface {
	*T
	proto.Message
}

// read serves a method whose request is the query.
func read[Req, Res any, PReq message[Req], PRes message[Res]](method func(context.Context, PReq) (PRes, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := PReq(new(Req))
		if err := fromQuery(r.URL.Query(), req); err != nil {
			refuse(w, err)
			return
		}
		answer(w, r, req, method)
	})
}

// change serves a method whose request is the body; none is an empty one.
func change[Req, Res any, PReq message[Req], PRes message[Res]](method func(context.Context, PReq) (PRes, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := PReq(new(Req))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
		var tooBig *http.MaxBytesError
		switch {
		case errors.As(err, &tooBig):
			refuse(w, status.Errorf(codes.InvalidArgument, "the body is larger than %d bytes", mostBody))
			return
		case err != nil:
			panic(http.ErrAbortHandler) // the client has left
		case len(body) > 0:
			if err := protojson.Unmarshal(body, req); err != nil {
				refuse(w, status.Error(codes.InvalidArgument, clean(err)))
				return
			}
		}
		answer(w, r, req, method)
	})
}

// clean is what protojson says, without what it puts before that to keep others from
// comparing its text.
func clean(err error) string {
	return strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
}

// asJSON is how messages are written: with all fields, by the names of the .proto.
var asJSON = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

func answer[PReq, PRes proto.Message](w http.ResponseWriter, r *http.Request, req PReq, method func(context.Context, PReq) (PRes, error)) {
	res, err := method(r.Context(), req)
	if err != nil {
		refuse(w, err)
		return
	}
	code := http.StatusOK
	if p, ok := any(res).(interface{ GetProblems() []*adminv1.Problem }); ok && len(p.GetProblems()) > 0 {
		code = http.StatusUnprocessableEntity // for curl -f
	}
	write(w, code, res)
}

func write(w http.ResponseWriter, code int, m proto.Message) {
	b, err := asJSON.Marshal(m)
	if err != nil { // a text that is no UTF-8
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(indented(b)) // the client has left: nothing to tell
}

// indented is JSON for people, and always the same: protojson varies its spaces.
func indented(b []byte) []byte {
	var v json.RawMessage = b
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return b
	}
	return append(out, '\n')
}

// httpStatus are the codes that differ from 500.
var httpStatus = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.NotFound:           http.StatusNotFound,
	codes.FailedPrecondition: http.StatusConflict,
	codes.Unimplemented:      http.StatusNotImplemented,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	st := status.Convert(err)
	code, ok := httpStatus[st.Code()]
	if !ok {
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	body, _ := json.MarshalIndent(map[string]string{"code": st.Code().String(), "message": st.Message()}, "", "  ") //nolint:errchkjson // of texts, it cannot fail
	_, _ = w.Write(append(body, '\n'))                                                                              // the client has left: nothing to tell
}

// fromQuery fills a request in. The fields of a filter stand alone.
func fromQuery(query url.Values, req proto.Message) error {
	into := make(map[string]any)
	filter := make(map[string]any)
	fields := req.ProtoReflect().Descriptor().Fields()
	var inner protoreflect.FieldDescriptors
	if f := fields.ByName("filter"); f != nil {
		inner = f.Message().Fields()
		into["filter"] = filter
	}
	for name, values := range query {
		if len(values) != 1 {
			return status.Errorf(codes.InvalidArgument, "%s: given %d times", name, len(values))
		}
		switch {
		case name != "filter" && fields.ByName(protoreflect.Name(name)) != nil:
			into[name] = values[0]
		case inner != nil && inner.ByName(protoreflect.Name(name)) != nil:
			filter[name] = values[0]
		default:
			return status.Errorf(codes.InvalidArgument, "unknown parameter %q", name)
		}
	}
	body, err := json.Marshal(into)
	if err == nil {
		err = protojson.Unmarshal(body, req) // numbers may be texts
	}
	if err != nil {
		return status.Error(codes.InvalidArgument, clean(err))
	}
	return nil
}

// watchHTTP serves WatchConnections: a line of JSON for each list.
func (s *Service) watchHTTP(w http.ResponseWriter, r *http.Request) {
	req := new(adminv1.WatchConnectionsRequest)
	if err := fromQuery(r.URL.Query(), req); err != nil {
		refuse(w, err)
		return
	}
	begun := false
	rc := http.NewResponseController(w)
	err := s.watch(r.Context(), req, func(res *adminv1.WatchConnectionsResponse) error {
		b, err := asJSON.Marshal(res)
		if err != nil {
			return fmt.Errorf("admin: %w", err)
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		return rc.Flush()
	})
	if err != nil && !begun {
		refuse(w, err)
	}
}
