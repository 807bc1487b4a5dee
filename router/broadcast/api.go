package broadcast

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/oneport-edge/oneport/protocols"
)

// publisher reports whether an Authorization field has a publisher's token.
func (h *Hub) publisher(field string) bool {
	scheme, token, _ := strings.Cut(field, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(token))
	ok := 0
	for _, want := range h.rules.Load().tokens {
		ok |= subtle.ConstantTimeCompare(sum[:], want[:])
	}
	return ok == 1
}

// API is the publishers' side in JSON: POST to /publish, /publish_batch, /presence, /history and
// /disconnect, below any path, with "Authorization: Bearer TOKEN":
//
//	POST /broadcast/publish {"channel":"news:today","data":{"rain":true},"idempotency_key":"7"}
//	200 {"offset":42,"epoch":"xyz"}
//
// What is wrong is said as {"error":{"code":"...","message":"..."}}: 404 for a channel of no namespace, 413
// for a message that is too big, 503 with Retry-After while the broker is away: then the message may have
// got there, and who tries again uses the same key. "Idempotency-Key" may be a header field too.
func (h *Hub) API() http.Handler {
	methods := map[string]func(context.Context, *http.Request, []byte) (any, error){
		"publish": h.postPublish, "publish_batch": h.postBatch, "presence": h.postPresence,
		"history": h.postHistory, "disconnect": h.postDisconnect,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		method := methods[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		switch {
		case !h.publisher(r.Header.Get("Authorization")):
			writeRefusal(w, &protocols.Refusal{Reason: protocols.ReasonUnauthenticated})
			return
		case method == nil:
			writeJSON(w, http.StatusNotFound, errorBody("not_found", "no such method"))
			return
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			writeJSON(w, http.StatusMethodNotAllowed, errorBody("method_not_allowed", "want POST"))
			return
		}
		if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Header.Get("Content-Type") != "" && (err != nil || t != "application/json") {
			writeJSON(w, http.StatusUnsupportedMediaType, errorBody("unsupported_media_type", "want application/json"))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.mostBody()))
		var tooBig *http.MaxBytesError
		switch {
		case errors.As(err, &tooBig):
			writeError(w, fmt.Errorf("%w: a request has at most %d bytes", ErrTooBig, h.mostBody()))
			return
		case err != nil:
			return // the client has gone
		}
		res, err := method(r.Context(), r, body)
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, res)
	})
}

// mostBody bounds a request: a batch of sixteen large messages.
func (h *Hub) mostBody() int64 { return 16 * (int64(h.opts.MessageSize) + frameSlack) }

// posted is a message in JSON.
type posted struct {
	Channel        string            `json:"channel"`
	Data           json.RawMessage   `json:"data"`
	IdempotencyKey string            `json:"idempotency_key"`
	Tags           map[string]string `json:"tags"`
}

func (p *posted) message() Message {
	return Message{p.Channel, p.Data, p.IdempotencyKey, p.Tags}
}

// parse reads the one JSON value of a body, and refuses names that it does not know.
func parse(body []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: more than one JSON value", ErrMalformed)
	}
	return nil
}

func (h *Hub) postPublish(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var p posted
	if err := parse(body, &p); err != nil {
		return nil, err
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		if p.IdempotencyKey != "" && p.IdempotencyKey != key {
			return nil, fmt.Errorf("%w: two idempotency keys", ErrMalformed)
		}
		p.IdempotencyKey = key
	}
	return h.Publish(ctx, p.message())
}

// batchResult is a position or an error.
type batchResult struct {
	Position
	Error *apiError `json:"error,omitempty"`
}

func (h *Hub) postBatch(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in struct {
		Publications []posted `json:"publications"`
	}
	if err := parse(body, &in); err != nil {
		return nil, err
	}
	list := make([]Message, len(in.Publications))
	for i, p := range in.Publications {
		list[i] = p.message()
	}
	var out struct {
		Results []batchResult `json:"results"`
	}
	err := h.batch(ctx, list, func(at Position, err error) {
		r := batchResult{Position: at}
		if err != nil {
			_, r.Error = explain(err)
		}
		out.Results = append(out.Results, r)
	})
	return out, err
}

// batch publishes in order. Once the broker is away, what is left fails at once.
func (h *Hub) batch(ctx context.Context, list []Message, done func(Position, error)) error {
	if len(list) == 0 || len(list) > mostBatch {
		return fmt.Errorf("%w: want 1 to %d publications", ErrMalformed, mostBatch)
	}
	var away error
	for _, m := range list {
		var at Position
		err := away
		if err == nil {
			at, err = h.Publish(ctx, m)
		}
		if errors.Is(err, ErrAway) || errors.Is(err, ErrBusy) {
			away = err
		}
		done(at, err)
	}
	return nil
}

func (h *Hub) postPresence(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in struct {
		Channel string `json:"channel"`
	}
	if err := parse(body, &in); err != nil {
		return nil, err
	}
	list, err := h.Presence(ctx, in.Channel)
	if list == nil {
		list = []Client{}
	}
	return map[string]any{"clients": list}, err
}

func (h *Hub) postHistory(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in struct {
		Channel string    `json:"channel"`
		Limit   int       `json:"limit"`
		Since   *Position `json:"since"`
		Reverse bool      `json:"reverse"`
	}
	if err := parse(body, &in); err != nil {
		return nil, err
	}
	list, at, err := h.History(ctx, in.Channel, HistoryOptions{in.Limit, in.Since, in.Reverse})
	if list == nil {
		list = []Publication{}
	}
	return struct {
		Publications []Publication `json:"publications"`
		Position
	}{list, at}, err
}

func (h *Hub) postDisconnect(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in struct {
		User   string `json:"user"`
		Client string `json:"client"`
	}
	if err := parse(body, &in); err != nil {
		return nil, err
	}
	return struct{}{}, h.Disconnect(ctx, in.User, in.Client)
}

// apiError is what is wrong, in JSON.
type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func errorBody(code, message string) any {
	return map[string]any{"error": apiError{code, message}}
}

// explain is err in HTTP's words.
func explain(err error) (status int, e *apiError) {
	switch {
	case errors.Is(err, ErrUnknownChannel):
		return http.StatusNotFound, &apiError{"unknown_channel", text(err)}
	case errors.Is(err, ErrForbidden):
		return http.StatusForbidden, &apiError{"forbidden", text(err)}
	case errors.Is(err, ErrTooBig):
		return http.StatusRequestEntityTooLarge, &apiError{"too_big", text(err)}
	case errors.Is(err, ErrMalformed):
		return http.StatusBadRequest, &apiError{"malformed", text(err)}
	default:
		return http.StatusServiceUnavailable, &apiError{"unavailable", text(err)}
	}
}

func writeError(w http.ResponseWriter, err error) {
	status, e := explain(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, errorBody(e.Code, e.Message))
}

func writeRefusal(w http.ResponseWriter, why *protocols.Refusal) {
	status, message := why.HTTP(w.Header())
	writeJSON(w, status, errorBody("unauthenticated", message))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that has gone needs no answer
}
