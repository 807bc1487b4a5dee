package h2_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Found by the model and by reading; each is one behaviour.

// modelOf runs a test with a client, a switch and a server in between.
func modelOf(t *testing.T, l h2.Limits, test func(t *testing.T, m *model)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if l.Window == 0 {
			l.Window = 256 << 10
		}
		if l.ConnWindow == 0 {
			l.ConnWindow = 1 << 20
		}
		if l.Streams == 0 {
			l.Streams = 100
		}
		m := newModel(t.Fatalf, l)
		defer m.close()
		test(t, m)
	})
}

// start opens a stream, which the server answers.
func (m *model) start() *modelStream {
	s := &modelStream{id: m.next, up: &modelSide{credit: m.client.theirs, window: m.client.ours}, status: true}
	m.next += 2
	m.client.sides[s.id] = s.up
	m.client.write(m.fail, m.client.head(s.id, false, ":method", "POST", ":scheme", "https", ":path", "/"))
	if m.server == nil {
		m.accept()
	}
	m.settle()
	s.down = m.server.sides[s.id]
	m.server.write(m.fail, m.server.head(s.id, false, ":status", "200"))
	m.settle()
	m.live[s.id] = s
	return s
}

// fill sends as much from the server as the windows take.
func (m *model) fill(s *modelStream) {
	for {
		n := min(s.down.credit, m.server.connCredit, frame.MaxLen)
		if n <= 0 {
			return
		}
		m.server.put(m.fail, s.id, s.down, n, -1, false)
		m.settle()
	}
}

// resize changes the client's INITIAL_WINDOW_SIZE.
func (m *model) resize(size int64) {
	for _, s := range m.client.sides {
		s.window += size - m.client.ours
	}
	m.client.ours = size
	m.client.acks++
	m.client.write(m.fail, frame.AppendSettings(nil, frame.Setting{ID: frame.InitialWindowSize, Value: uint32(size)}))
	m.settle()
}

// DATA of nothing but padding takes of the connection's window, too.
func TestPaddingOfAServerIsCredited(t *testing.T) {
	modelOf(t, h2.Limits{ConnWindow: 64 << 10}, func(t *testing.T, m *model) {
		s := m.start()
		for i := range 1000 {
			p := make([]byte, 256) // padding, and its length
			p[0] = 255
			h := frame.Header{Length: len(p), Type: frame.Data, Flags: frame.Padded, Stream: s.id}
			if m.server.connCredit -= int64(len(p)); m.server.connCredit < 0 {
				t.Fatalf("the connection's window is used up by %d frames of padding", i)
			}
			m.server.write(t.Fatalf, append(h.Append(nil), p...))
			m.settle()
		}
	})
}

// A client that opens its connection's window widely gets what has waited for it.
func TestLargeConnectionUpdate(t *testing.T) {
	modelOf(t, h2.Limits{}, func(t *testing.T, m *model) {
		m.resize(1 << 20)
		m.client.connWindow = 512 << 10 // the switch tops its server up just when nothing more goes out
		m.client.write(t.Fatalf, frame.AppendWindowUpdate(nil, 0, uint32(m.client.connWindow-frame.DefaultWindow)))
		for range 8 {
			m.fill(m.start())
		}
		m.client.connWindow += 8 << 20
		m.client.write(t.Fatalf, frame.AppendWindowUpdate(nil, 0, 8<<20))
		m.check()
	})
}

// A client that has not seen our SETTINGS yet may use the window that every
// stream has without them (RFC 9113, 6.9.2 and 6.9.3).
func TestDataBeforeSettings(t *testing.T) {
	inBubble(t, options{limits: h2.Limits{Window: 8 << 10}}, func(_ *testing.T, e *edge) {
		c := e.dialSilent()
		go c.read()
		c.send([]byte(frame.Preface), frame.AppendSettings(nil), c.post(1, "/len"))
		c.send(data(1, strings.Repeat("x", 16<<10), true))
		c.wantBody(1, "200", "16384 <nil>")
	})
}

// drained brings a connection to its last GOAWAY, with stream 1 open.
func drained(t *testing.T, m *model) (frames func() []modelFrame) {
	m.start()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.sw.Shutdown(t.Context())
	}()
	t.Cleanup(func() { <-done })
	time.Sleep(3 * time.Second) // the PING is not answered
	return func() []modelFrame {
		synctest.Wait()
		m.client.mu.Lock()
		defer m.client.mu.Unlock()
		return m.client.inbox
	}
}

// The last stream of a GOAWAY must not grow (RFC 9113, 6.8).
func TestGoAwayNeverGrows(t *testing.T) {
	modelOf(t, h2.Limits{}, func(t *testing.T, m *model) {
		frames := drained(t, m)
		m.client.write(t.Fatalf, m.client.head(3, true, ":method", "GET", ":scheme", "https", ":path", "/"))
		m.client.write(t.Fatalf, frame.AppendData(nil, 0, nil, false)) // a connection error
		last := byte(255)
		for _, f := range frames() {
			if f.Type == frame.GoAway {
				if f.p[3] > last {
					t.Errorf("stream %d was the last, and now it is %d", last, f.p[3])
				}
				last = f.p[3]
			}
		}
		if last != 1 {
			t.Errorf("the last GOAWAY names stream %d, want 1", last)
		}
	})
}

// Trailers of a request that a GOAWAY has crossed are ignored as its head was.
func TestTrailersBehindGoAway(t *testing.T) {
	modelOf(t, h2.Limits{}, func(t *testing.T, m *model) {
		frames := drained(t, m)
		m.client.write(t.Fatalf, m.client.head(3, false, ":method", "POST", ":scheme", "https", ":path", "/"))
		m.client.write(t.Fatalf, m.client.head(3, true, "x-end", "1"))
		for _, f := range frames() {
			if f.Type == frame.GoAway && f.p[7] != 0 {
				t.Errorf("the connection ends with %v: %s", frame.Code(f.p[7]), f.p[8:])
			}
		}
	})
}

// Close ends a Write that waits, as net.Conn has it.
func TestCloseEndsWrite(t *testing.T) {
	modelOf(t, h2.Limits{}, func(t *testing.T, m *model) {
		m.start()
		for id := uint32(3); id < 11; id += 2 {
			m.client.write(t.Fatalf, m.client.head(id, true, ":method", "GET", ":scheme", "https", ":path", "/"))
		}
		synctest.Wait()
		<-m.client.gate // the client does not read any more
		defer func() { m.client.gate <- struct{}{} }()
		var wrote error
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; wrote == nil; i++ {
				_, wrote = m.server.nc.Write(m.server.head(uint32(3+i%4*2), false, ":status", "103", "x-long", strings.Repeat("x", 16<<10)))
			}
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("nothing waits")
		default:
		}
		_ = m.server.nc.Close()
		begun := time.Now()
		<-done
		if d := time.Since(begun); d > time.Second {
			t.Errorf("Write waits for another %v", d)
		}
	})
}

// A server that has answered and gone wants no more of the request.
func TestServerGoneBehindItsAnswer(t *testing.T) {
	modelOf(t, h2.Limits{}, func(t *testing.T, m *model) {
		m.resize(1 << 20)
		s := m.start()
		m.fill(s)
		m.server.write(t.Fatalf, frame.AppendData(nil, s.id, nil, true))
		synctest.Wait()
		_ = m.server.nc.Close()
		synctest.Wait()
		m.client.connWindow += 1 << 20
		m.client.write(t.Fatalf, frame.AppendWindowUpdate(nil, 0, 1<<20))
		synctest.Wait()
		m.client.take(t.Fatalf)
		if !s.up.heard || s.up.received != s.down.sent {
			t.Fatalf("%d of %d bytes arrive, end %v", s.up.received, s.down.sent, s.up.heard)
		}
		if !s.up.reset || s.up.code != frame.NoError {
			t.Errorf("nobody tells the client to stop (RST_STREAM %v), and the stream stays for ever", s.up.reset)
		}
	})
}
