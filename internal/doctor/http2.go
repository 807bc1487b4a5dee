package doctor

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is what curl offers: enough for what is read here.
const window = 10 << 20

// conn2 is a client's connection of HTTP/2, for one goroutine.
type conn2 struct {
	*tls.Conn // nil in fuzz tests
	p         *patient
	w         io.Writer
	r         *bufio.Reader
	fr        *http2.Framer
	head      bytes.Buffer
	enc       *hpack.Encoder
	next      uint32

	frames   int                // those that have come
	settings [][]http2.Setting  // each SETTINGS frame that is no acknowledgement
	early    int                // how many of them before anything else but such
	goaway   *http2.GoAwayFrame // the last; its debug data is not kept
	streams  map[uint32]*stream
}

// stream is a call.
type stream struct {
	answer
	got   int // bytes of body
	done  bool
	reset error
}

// request2 is a call to be made.
type request2 struct {
	fields  [][2]string
	body    []byte
	trailer [][2]string
}

// goAwayError says that the server has ended the connection.
type goAwayError struct{ code http2.ErrCode }

func (e goAwayError) Error() string {
	return fmt.Sprintf("it ends the connection with GOAWAY %v", e.code)
}

var errHTTP1 = errors.New("it answers in HTTP/1 to HTTP/2")

type resetError struct{ code http2.ErrCode }

func (e resetError) Error() string { return fmt.Sprintf("it resets the stream with %v", e.code) }

// request is an ordinary one.
func (p *patient) request(method, path string, more ...[2]string) *request2 {
	return &request2{fields: append([][2]string{
		{":method", method},
		{":scheme", "https"},
		{":authority", p.authority},
		{":path", path},
		{"user-agent", "oneport-doctor"},
		{"accept", "*/*"},
	}, more...)}
}

func (p *patient) get() *request2 { return p.request(http.MethodGet, p.Path) }

// unary is a gRPC call with an empty message.
func (p *patient) unary() *request2 {
	return &request2{
		fields: [][2]string{
			{":method", http.MethodPost},
			{":scheme", "https"},
			{":path", "/" + p.GRPCMethod},
			{":authority", p.authority},
			{"content-type", "application/grpc"},
			{"user-agent", "oneport-doctor"},
			{"te", "trailers"},
			{"grpc-timeout", fmt.Sprintf("%dm", p.Timeout.Milliseconds())},
		},
		body: make([]byte, 5),
	}
}

// open2 dials, and begins HTTP/2.
func (p *patient) open2(timeouts int, alpn ...string) (*conn2, error) {
	c, err := p.secure(timeouts, p.config(alpn...))
	if err != nil {
		return nil, err
	}
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		shut(c)
		return nil, errNoHTTP2
	}
	h := newConn2(p, c)
	h.Conn = c
	if err := h.begin(); err != nil {
		shut(c)
		return nil, err
	}
	return h, nil
}

func newConn2(p *patient, rw io.ReadWriter) *conn2 {
	h := &conn2{p: p, w: rw, r: bufio.NewReader(io.LimitReader(rw, mostAnswer)), next: 1, streams: make(map[uint32]*stream)}
	h.fr = http2.NewFramer(rw, h.r)
	h.fr.SetMaxReadFrameSize(1 << 14)
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.fr.MaxHeaderListSize = 64 << 10
	h.enc = hpack.NewEncoder(&h.head)
	return h
}

// begin writes what a client does before it has read anything.
func (h *conn2) begin() error {
	if _, err := io.WriteString(h.w, http2.ClientPreface); err != nil {
		return err
	}
	err := h.fr.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
	)
	if err != nil {
		return err
	}
	return h.fr.WriteWindowUpdate(0, window)
}

// send makes a call.
func (h *conn2) send(req *request2) (*stream, error) {
	id := h.next
	h.next += 2
	s := new(stream)
	h.streams[id] = s
	last := len(req.body) == 0 && req.trailer == nil
	if err := h.headers(id, req.fields, last); err != nil || last {
		return s, err
	}
	if err := h.fr.WriteData(id, req.trailer == nil, req.body); err != nil || req.trailer == nil {
		return s, err
	}
	return s, h.headers(id, req.trailer, true)
}

func (h *conn2) headers(id uint32, fields [][2]string, last bool) error {
	h.head.Reset()
	for _, f := range fields {
		if err := h.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	return h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.head.Bytes(), EndStream: last, EndHeaders: true})
}

// ask makes a call, and waits for its answer.
func (h *conn2) ask(req *request2) (*answer, error) {
	s, err := h.send(req)
	if err != nil {
		for h.step() == nil { // why, the server may have said before it has closed
		}
		if h.goaway != nil {
			return nil, goAwayError{h.goaway.ErrCode}
		}
		return nil, err
	}
	return h.await(s)
}

// await reads until a call is answered.
func (h *conn2) await(s *stream) (*answer, error) {
	for !s.done {
		if err := h.step(); err != nil {
			if h.goaway != nil && h.goaway.ErrCode != http2.ErrCodeNo {
				return nil, goAwayError{h.goaway.ErrCode}
			}
			return nil, err
		}
	}
	if s.reset != nil {
		return nil, s.reset
	}
	return &s.answer, nil
}

// step reads a frame.
func (h *conn2) step() error {
	if h.frames == 0 {
		if b, err := h.r.Peek(5); err != nil {
			return err
		} else if string(b) == "HTTP/" {
			return errHTTP1
		}
	}
	f, err := h.fr.ReadFrame()
	switch {
	case err != nil && strings.Contains(err.Error(), "looked like an HTTP/1"): // behind frames of another
		return errHTTP1
	case err != nil:
		return err
	}
	h.frames++
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return h.onSettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return h.fr.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		h.goaway = &http2.GoAwayFrame{LastStreamID: f.LastStreamID, ErrCode: f.ErrCode}
		for id, s := range h.streams {
			if id > f.LastStreamID && !s.done {
				s.done, s.reset = true, goAwayError{f.ErrCode}
			}
		}
	case *http2.RSTStreamFrame:
		if s := h.streams[f.StreamID]; s != nil && !s.done {
			s.done, s.reset = true, resetError{f.ErrCode}
		}
	case *http2.MetaHeadersFrame:
		return h.onHeaders(f)
	case *http2.DataFrame:
		h.onData(f)
	}
	return nil
}

func (h *conn2) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	var all []http2.Setting
	_ = f.ForeachSetting(func(s http2.Setting) error { // which never fails
		all = append(all, s)
		return nil
	})
	h.settings = append(h.settings, all)
	if len(h.settings) > 100 {
		return errors.New("it sends SETTINGS again and again")
	}
	return h.fr.WriteSettingsAck()
}

func (h *conn2) onHeaders(f *http2.MetaHeadersFrame) error {
	s := h.streams[f.StreamID]
	if s == nil || s.done {
		return nil
	}
	fields := make(http.Header)
	for _, hf := range f.Fields {
		fields.Add(hf.Name, hf.Value) // Add makes the name canonical
	}
	status, _ := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case s.header == nil && status/100 == 1: // an interim answer
		return nil
	case s.header == nil:
		s.status, s.header, s.at = status, fields, time.Now()
		h.early = max(h.early, len(h.settings))
	default:
		s.trailer = fields
	}
	s.frames++
	if f.StreamEnded() {
		s.done, s.whole = true, true
	}
	return nil
}

func (h *conn2) onData(f *http2.DataFrame) {
	s := h.streams[f.StreamID]
	if s == nil || s.done {
		return
	}
	data := f.Data()
	s.got += len(data)
	s.body = append(s.body, data[:min(len(data), mostBody-len(s.body))]...)
	switch {
	case f.StreamEnded():
		s.done, s.whole = true, true
	case s.got >= 4*mostBody: // enough was seen
		s.done = true
	}
}

// alone makes a call on a connection of its own.
func (p *patient) alone(req *request2, alpn ...string) (*answer, error) {
	h, err := p.open2(1, alpn...)
	if err != nil {
		return nil, err
	}
	defer shut(h)
	return h.ask(req)
}

// setting looks a value up in the last SETTINGS frame that has it.
func (h *conn2) setting(id http2.SettingID) (val uint32, found bool) {
	for _, all := range h.settings {
		for _, s := range all {
			if s.ID == id {
				val, found = s.Val, true
			}
		}
	}
	return val, found
}

// shown are settings in short.
func shown(all []http2.Setting) string {
	if len(all) == 0 {
		return "an empty one"
	}
	const most = 20
	var list []string
	for i, s := range all {
		if i == most {
			list = append(list, fmt.Sprintf("and %d more", len(all)-most))
			break
		}
		list = append(list, fmt.Sprintf("%v=%d", s.ID, s.Val))
	}
	return strings.Join(list, " ")
}
