package router

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Validate says what is wrong with a route.
func (r *Route) Validate() error {
	switch {
	case len(r.kinds()) != 1:
		return fmt.Errorf("router: route %q names GRPC, Path and WebSocket, or none of them: want one", r)
	case r.Path != "" && r.Path[0] != '/', r.WebSocket != "" && r.WebSocket[0] != '/':
		return fmt.Errorf("router: route %q: the path does not begin with /", r)
	case r.GRPC != "" && (r.GRPC[0] == '/' || strings.Count(r.GRPC, "/") > 1):
		return fmt.Errorf("router: %q names no gRPC service: want pkg.Service, pkg.Service/Method or *", r.GRPC)
	case r.Redirect != "":
		return r.validateRedirect()
	case r.Handler != nil && (r.Path == "" || r.To != nil || len(r.Split) > 0):
		return fmt.Errorf("router: route %q has a Handler: that is for Path, and instead of To", r)
	case r.Session != nil && (r.WebSocket == "" || r.To != nil || len(r.Split) > 0):
		return fmt.Errorf("router: route %q has a Session: that is for WebSocket, and instead of To", r)
	case r.Handler != nil, r.Session != nil:
		return nil
	}
	return r.validateTo()
}

// validateTo says what is wrong with where a route leads.
func (r *Route) validateTo() error {
	shares := r.shares()
	switch {
	case len(shares) == 0:
		return fmt.Errorf("router: route %q leads nowhere: want To, Split or Redirect", r)
	case r.To != nil && len(r.Split) > 0:
		return fmt.Errorf("router: route %q has To and Split: want one", r)
	}
	all := shares
	if r.Fallback != nil && r.Fallback.To != nil {
		all = append(slices.Clone(shares), Share{r.Fallback.To, 1})
	}
	for _, s := range all {
		switch {
		case s.To == nil:
			return fmt.Errorf("router: route %q: a share without an upstream", r)
		case s.Weight < 1:
			return fmt.Errorf("router: route %q: the weight of %v is %d: want 1 or more", r, s.To, s.Weight)
		case r.GRPC != "" && !s.To.HTTP2():
			return fmt.Errorf("router: route %q: gRPC needs HTTP/2, and %v speaks HTTP/1: want grpc://, grpcs:// or h2c://", r, s.To)
		case r.WebSocket != "" && s.To.HTTP2():
			return fmt.Errorf("router: route %q: WebSocket needs HTTP/1.1, and %v speaks HTTP/2: want http:// or https://", r, s.To)
		case s.To.HTTP2() != shares[0].To.HTTP2():
			return fmt.Errorf("router: route %q: %v and %v speak different versions of HTTP", r, shares[0].To, s.To)
		}
	}
	return r.validateMore()
}

// validateMore says what is wrong with what a route does to its calls.
func (r *Route) validateMore() error {
	wrong := func(err error) error { return fmt.Errorf("router: route %q: %w", r, err) }
	for _, e := range []*Edits{&r.Request, &r.Response} {
		if err := e.validate(); err != nil {
			return wrong(err)
		}
	}
	if r.CORS != nil {
		if err := r.CORS.validate(); err != nil {
			return wrong(err)
		}
	}
	if err := r.validateBody(); err != nil {
		return wrong(err)
	}
	if err := r.validateTunnel(); err != nil {
		return wrong(err)
	}
	f := r.Fallback
	switch {
	case r.GRPC != "" && r.EncodedSlash:
		return wrong(errors.New("it has EncodedSlash: that is for Path and WebSocket"))
	case r.Path == "" && (r.Rewrite != "" || r.CORS != nil || r.Mirror != nil):
		return wrong(errors.New("it has Rewrite, CORS or Mirror: those are for Path alone"))
	case r.WebSocket != "" && (f != nil || r.RewriteHost != "" || r.Request.compile() != nil || r.Response.compile() != nil):
		return wrong(errors.New("it has Fallback, RewriteHost, Request or Response: those are not for WebSocket"))
	case r.Rewrite != "" && (r.Rewrite[0] != '/' || strings.HasSuffix(r.Path, "/") != strings.HasSuffix(r.Rewrite, "/") || strings.ContainsAny(r.Rewrite, "?#")):
		return wrong(fmt.Errorf("it has Rewrite %q: want a path that ends in / if Path does", r.Rewrite))
	case r.Mirror != nil && (r.Mirror.HTTP2() || r.shares()[0].To.HTTP2()):
		return wrong(errors.New("a mirror is for servers that speak HTTP/1.1"))
	case r.AnswerTimeout < 0 || r.CallTimeout < 0:
		return wrong(errors.New("a timeout below zero"))
	}
	if f != nil {
		if err := f.validate(); err != nil {
			return wrong(err)
		}
	}
	return nil
}

func (r *Route) validateBody() error {
	if r.MaxBody < 0 || r.MaxBody > 0 && r.Path == "" {
		return errors.New("it has MaxBody: that is a number of bytes, for Path alone")
	}
	return nil
}

func (f *Fallback) validate() error {
	switch {
	case (f.To != nil) == (f.Status != 0):
		return errors.New("a fallback has either To or Status")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("the fallback's status is %d: want 200 to 599", f.Status)
	}
	return nil
}

func (r *Route) validateRedirect() error {
	switch {
	case r.To != nil || len(r.Split) > 0:
		return fmt.Errorf("router: route %q leads to an upstream and redirects: want one", r)
	case r.Path == "":
		return fmt.Errorf("router: route %q redirects: that is for Path alone", r)
	case !slices.Contains([]int{0, 301, 302, 303, 307, 308}, r.RedirectStatus):
		return fmt.Errorf("router: route %q redirects with status %d: want 301, 302, 303, 307 or 308", r, r.RedirectStatus)
	}
	return nil
}
