package admin

import (
	"io"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

const (
	profilesPath = "/debug/pprof/"
	mostSeconds  = 60
)

// profiles serves Go's profiles as net/http/pprof does. That package is not used: to import
// it puts them on the default mux, for any server that has that.
func (s *Service) profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET "+profilesPath+"{name}", func(w http.ResponseWriter, r *http.Request) {
		p := pprof.Lookup(r.PathValue("name"))
		if p == nil {
			http.Error(w, "there is no such profile: want allocs, block, goroutine, heap, mutex, threadcreate, profile or trace", http.StatusNotFound)
			return
		}
		debug := 0
		contentType := "application/octet-stream"
		if r.URL.Query().Get("debug") == "1" {
			debug, contentType = 1, "text/plain; charset=utf-8"
		}
		w.Header().Set("Content-Type", contentType)
		_ = p.WriteTo(w, debug) // the client has left: nothing to tell
	})
	mux.HandleFunc("GET "+profilesPath+"profile", s.record(pprof.StartCPUProfile, pprof.StopCPUProfile))
	mux.HandleFunc("GET "+profilesPath+"trace", s.record(trace.Start, trace.Stop))
}

// record serves what is recorded over some seconds, one at a time.
func (s *Service) record(start func(io.Writer) error, stop func()) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seconds := 10
		if given := r.URL.Query().Get("seconds"); given != "" {
			n, err := strconv.Atoi(given)
			if err != nil || n < 1 || n > mostSeconds {
				http.Error(w, "seconds: want a number from 1 to "+strconv.Itoa(mostSeconds), http.StatusBadRequest)
				return
			}
			seconds = n
		}
		if s.profiling.Swap(true) {
			http.Error(w, "something is recorded already", http.StatusConflict)
			return
		}
		defer s.profiling.Store(false)
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := start(w); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		defer stop()
		t := time.NewTimer(time.Duration(seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.opts.Ending:
		case <-r.Context().Done():
		}
	}
}
