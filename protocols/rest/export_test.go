package rest

import "net/http"

// HandlerOf gives a server's entry, for its benchmark.
func HandlerOf(s *Server) http.Handler { return http.HandlerFunc(s.serve) }
