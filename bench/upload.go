package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// upload repeats one request over HTTP/2 with net/http's client, because flow
// control counts in large bodies toward the server.
type upload struct {
	ctx             context.Context
	http            *http.Client
	url, body, want string
}

// openUploads opens h2Conns connections, each with h2Bodies requests in flight.
func openUploads(path, body, want string) opener {
	return func(ctx context.Context, h *house, addr string) (load, error) {
		return openClients(h2Conns, func() (client, error) {
			var only http.Protocols
			only.SetHTTP2(true)
			t := &http.Transport{TLSClientConfig: h.tls("h2"), Protocols: &only}
			u := &upload{ctx, &http.Client{Transport: t}, "https://" + addr + path, body, want}
			return u, u.once() // the connection, before several want one at the same time
		})
	}
}

func (u *upload) do(n int) error {
	var all sync.WaitGroup
	errs := make([]error, h2Bodies)
	for i := range errs {
		all.Go(func() {
			for k := i; k < n && errs[i] == nil; k += len(errs) {
				errs[i] = u.once()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (u *upload) once() error {
	req, err := http.NewRequestWithContext(u.ctx, http.MethodPost, u.url, strings.NewReader(u.body))
	if err != nil {
		return err
	}
	res, err := u.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || res.ProtoMajor != 2 || string(got) != u.want) {
		err = &answerError{res.Proto + " " + res.Status + " " + string(got), u.want}
	}
	return err
}

func (u *upload) close() { u.http.CloseIdleConnections() }
