package h2_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// flood sends what next gives until the switch has had enough, and returns how
// often. It fails the test if that takes more than most rounds.
func (p *peer) flood(most int, next func(i int) []byte) int {
	p.t.Helper()
	for i := range most {
		if p.try(next(i)) != nil || p.over() {
			return i
		}
	}
	if p.ended() == nil {
		p.t.Errorf("%d rounds, and the connection lives", most)
	}
	return most
}

// over tells whether reading has ended, without waiting for anything.
func (p *peer) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end != nil
}

// Floods of frames that are cheap to send end the connection. Others go on.
func TestFloods(t *testing.T) {
	id := func(i int) uint32 { return uint32(2*i + 1) }
	for name, attack := range map[string]func(c *peer) func(i int) []byte{
		"rapid reset": func(c *peer) func(int) []byte { // CVE-2023-44487
			return func(i int) []byte { return append(c.get(id(i), "/wait"), rst(id(i), frame.Cancel)...) }
		},
		"rapid reset of calls": func(c *peer) func(int) []byte {
			m := &echov1.UnaryRequest{Message: "wait"}
			return func(i int) []byte { return append(c.call(id(i), "Unary", m), rst(id(i), frame.Cancel)...) }
		},
		"rapid reset without a server": func(c *peer) func(int) []byte {
			return func(i int) []byte { return append(c.post(id(i), "/fake"), rst(id(i), frame.Cancel)...) }
		},
		"made you reset, WINDOW_UPDATE of 0": func(c *peer) func(int) []byte { // CVE-2025-8671
			return func(i int) []byte { return append(c.get(id(i), "/wait"), window(id(i), 0)...) }
		},
		"made you reset, window overflow": func(c *peer) func(int) []byte {
			return func(i int) []byte { return append(c.get(id(i), "/wait"), window(id(i), frame.MaxWindow)...) }
		},
		"made you reset, DATA behind the end": func(c *peer) func(int) []byte {
			return func(i int) []byte { return append(c.get(id(i), "/wait"), data(id(i), "x", true)...) }
		},
		"made you reset, HEADERS behind the end": func(c *peer) func(int) []byte {
			return func(i int) []byte { return append(c.get(id(i), "/wait"), c.head(id(i), true)...) }
		},
		"made you reset, content-length": func(c *peer) func(int) []byte {
			return func(i int) []byte {
				return append(c.post(id(i), "/wait", "content-length", "1"), data(id(i), "xx", false)...)
			}
		},
		"made you reset, malformed trailers": func(c *peer) func(int) []byte {
			return func(i int) []byte { return append(c.post(id(i), "/wait"), c.head(id(i), true, ":path", "/")...) }
		},
		"made you reset, PRIORITY": func(c *peer) func(int) []byte {
			return func(i int) []byte {
				return append(c.get(id(i), "/wait"), raw(frame.Priority, 0, id(i), []byte{0, 0, 0, 1})...)
			}
		},
		"malformed requests": func(c *peer) func(int) []byte {
			return func(i int) []byte { return c.head(id(i), true, "A", "b") }
		},
		"streams beyond the limit": func(c *peer) func(int) []byte {
			return func(i int) []byte { return c.get(id(i), "/wait") }
		},
		"SETTINGS": func(*peer) func(int) []byte {
			return func(int) []byte { return settings(frame.InitialWindowSize, 1<<16) }
		},
		"SETTINGS, empty": func(*peer) func(int) []byte { return func(int) []byte { return frame.AppendSettings(nil) } },
		"SETTINGS, acks":  func(*peer) func(int) []byte { return func(int) []byte { return frame.AppendSettingsAck(nil) } },
		"PING": func(*peer) func(int) []byte {
			return func(int) []byte { return frame.AppendPing(nil, false, pingData) }
		},
		"PING, acks": func(*peer) func(int) []byte { return func(int) []byte { return frame.AppendPing(nil, true, pingData) } },
		"PRIORITY": func(*peer) func(int) []byte {
			return func(i int) []byte { return raw(frame.Priority, 0, id(i), make([]byte, 5)) }
		},
		"GOAWAY":         func(*peer) func(int) []byte { return func(int) []byte { return frame.AppendGoAway(nil, 0, 0, "") } },
		"unknown frames": func(*peer) func(int) []byte { return func(int) []byte { return raw(0xbe, 0, 0, nil) } },
		"tiny updates":   func(*peer) func(int) []byte { return func(int) []byte { return window(0, 1) } },
		"RST_STREAM again": func(c *peer) func(int) []byte {
			c.send(c.get(1, "/hello"))
			return func(int) []byte { return rst(1, 0) }
		},
		"DATA on a closed stream": func(c *peer) func(int) []byte {
			c.send(c.get(1, "/hello"))
			return func(int) []byte { return data(1, "x", false) }
		},
		"tiny updates of a stream": func(c *peer) func(int) []byte {
			c.send(c.get(1, "/wait"))
			return func(int) []byte { return window(1, 1) }
		},
		"updates of a closed stream": func(c *peer) func(int) []byte {
			c.send(c.get(1, "/hello"))
			return func(int) []byte { return window(1, 1000) }
		},
		"empty DATA": func(c *peer) func(int) []byte {
			c.send(c.post(1, "/len"))
			return func(int) []byte { return data(1, "", false) }
		},
		"DATA, all padding": func(c *peer) func(int) []byte {
			c.send(c.post(1, "/len"))
			return func(int) []byte { return raw(frame.Data, frame.Padded, 1, append([]byte{100}, make([]byte, 100)...)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, e *edge) {
				c := e.dial()
				next := attack(c)
				c.seen()
				n := c.flood(1500, next)
				c.seen()
				c.wantGoAway(frame.EnhanceYourCalm)
				if most := e.most.Load(); most > 100 {
					t.Errorf("%d handlers at once", most)
				}
				if st := e.sw.Stats(); st.Ended["ENHANCE_YOUR_CALM"] != 1 {
					t.Errorf("%v", st)
				}
				time.Sleep(2 * time.Second) // linger
				synctest.Wait()
				if n, m := e.running.Load(), e.echo.running.Load(); n+m != 0 {
					t.Errorf("%d and %d handlers still run", n, m)
				}
				e.alive()
				t.Logf("ended after %d", n)
			})
		})
	}
}

// The reset of a stream that nobody has answered counts twice, whoever sends it.
func TestResetsCountTwice(t *testing.T) {
	for name, reset := range map[string]func(id uint32) []byte{
		"the client":     func(id uint32) []byte { return rst(id, frame.Cancel) },
		"made you reset": func(id uint32) []byte { return window(id, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{limits: h2.Limits{Nuisance: 100}}, func(_ *testing.T, e *edge) {
				c := e.dial()
				id := uint32(1)
				for range 45 {
					c.send(c.get(id, "/wait"), reset(id))
					c.seen()
					id += 2
				}
				c.wantOpen()
				for range 5 {
					_ = c.try(c.get(id, "/wait"), reset(id))
					c.seen()
					id += 2
				}
				c.wantGoAway(frame.EnhanceYourCalm)
			})
		})
	}
}

// Header blocks that do not end, or are larger than they look.
func TestHeaderBombs(t *testing.T) {
	first := raw(frame.Headers, frame.EndStream, 1, []byte{0x82})
	for name, tc := range map[string]struct {
		next func(c *peer) func(i int) []byte
		most int
	}{
		"CONTINUATION, empty": {func(*peer) func(int) []byte { return func(int) []byte { return raw(frame.Continuation, 0, 1, nil) } }, 20},
		"CONTINUATION, small": {func(*peer) func(int) []byte {
			return func(int) []byte { return raw(frame.Continuation, 0, 1, []byte{0x82}) }
		}, 20},
		"CONTINUATION, full": {func(*peer) func(int) []byte {
			return func(int) []byte { return raw(frame.Continuation, 0, 1, bytes.Repeat([]byte{0x82}, 1<<14)) }
		}, 20},
		"CONTINUATION, string": {func(*peer) func(int) []byte { // a literal of 16 MiB
			return func(i int) []byte {
				if i == 0 {
					return raw(frame.Continuation, 0, 1, hpackInt([]byte{0, 1, 'a'}, 0, 7, 1<<24))
				}
				return raw(frame.Continuation, 0, 1, make([]byte, 1<<14))
			}
		}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(_ *testing.T, e *edge) {
				c := e.dial()
				c.send(first)
				c.flood(tc.most, tc.next(c))
				c.wantGoAway(frame.EnhanceYourCalm)
				e.alive()
			})
		})
	}
	// A field of 4 KB in the table, named 16,000 times by a byte.
	t.Run("HPACK bomb", func(t *testing.T) {
		inBubble(t, options{}, func(t *testing.T, e *edge) {
			c := e.dial()
			c.send(c.get(1, "/hello", "bomb", strings.Repeat("x", 3900)))
			c.wantBody(1, "200", "hello")
			fuse := append(c.encode(request("GET", "/hello")...), bytes.Repeat([]byte{0x80 | 62}, 15000)...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for id := uint32(3); id < 103; id += 2 {
				c.send(frame.AppendBlock(nil, id, fuse, true))
				if a := c.answer(id); a.status != "431" {
					t.Fatalf("%v", a)
				}
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("50 bombs allocated %d bytes", n)
			}
			c.send(c.get(201, "/hello"))
			c.wantBody(201, "200", "hello")
		})
	})
	// A table larger than it was offered.
	t.Run("HPACK table", func(t *testing.T) {
		inBubble(t, options{}, func(_ *testing.T, e *edge) {
			c := e.dial()
			c.send(raw(frame.Headers, frame.EndHeaders|frame.EndStream, 1, hpackInt(nil, 0x20, 5, 4097)))
			c.wantGoAway(frame.CompressionError)
		})
	})
	t.Run("HPACK numbers", func(t *testing.T) {
		for _, block := range [][]byte{bytes.Repeat([]byte{0xff}, 100), hpackInt(nil, 0x80, 7, 1<<40), {0x80}, hpackInt([]byte{0, 1, 'a'}, 0, 7, 1<<62)} {
			inBubble(t, options{}, func(_ *testing.T, e *edge) {
				c := e.dial()
				c.send(raw(frame.Headers, frame.EndHeaders|frame.EndStream, 1, block))
				if got := c.outcome(1); got != connErr(frame.CompressionError) && got != connErr(frame.EnhanceYourCalm) {
					t.Errorf("%x: %s", block, got)
				}
			})
		}
	})
}

// hpackInt appends a number as HPACK writes it (RFC 7541, 5.1).
func hpackInt(b []byte, first byte, bits uint, n uint64) []byte {
	mask := uint64(1)<<bits - 1
	if n < mask {
		return append(b, first|byte(n))
	}
	b, n = append(b, first|byte(mask)), n-mask
	for ; n >= 128; n >>= 7 {
		b = append(b, 0x80|byte(n))
	}
	return append(b, byte(n))
}

// A client that lets honest requests pay for its resets still cannot make the
// servers work on more than its streams.
func TestRapidResetWithEarnings(t *testing.T) {
	for _, path := range []string{"/deaf", "call"} {
		t.Run(path, func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, e *edge) {
				c := e.dial()
				id := uint32(1)
				for range 3000 {
					f := c.get(id, "/none")
					if path == "call" {
						f = append(f, c.call(id+2, "Unary", &echov1.UnaryRequest{Message: "deaf"})...)
					} else {
						f = append(f, c.get(id+2, path)...)
					}
					if c.try(f) != nil {
						break
					}
					synctest.Wait()
					if c.over() || c.try(rst(id+2, frame.Cancel)) != nil {
						break
					}
					id += 4
				}
				if n, m := e.running.Load(), e.echo.running.Load(); n+m > 350 {
					t.Errorf("%d and %d handlers run for one client; %s", n, m, c.goAways())
				}
				e.alive()
			})
		})
	}
}

// heap is what is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Clients that take nothing cost a bounded amount of memory each, with all the
// streams they may have.
func TestMemoryOfStuckClients(t *testing.T) {
	const clients = 10
	for name, tc := range map[string]struct {
		open func(c *peer)
		most uint64 // bytes for each client
	}{
		"never reads": {func(c *peer) {
			c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, frame.MaxWindow), window(0, frame.MaxWindow-65535))
			for id := uint32(1); id < 200; id += 2 {
				c.send(c.get(id, "/big?10000000"))
			}
		}, 3 << 20},
		"no windows": {func(c *peer) {
			c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 0))
			for id := uint32(1); id < 200; id += 2 {
				c.send(c.get(id, "/big?10000000"))
			}
		}, 4 << 20},
		"tiny windows": {func(c *peer) {
			c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 1))
			for id := uint32(1); id < 200; id += 2 {
				c.send(c.get(id, "/big?10000000"))
			}
		}, 4 << 20},
		"large windows taken back": {func(c *peer) {
			c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, frame.MaxWindow))
			for id := uint32(1); id < 200; id += 2 {
				c.send(c.get(id, "/big?10000000"))
			}
			synctest.Wait()
			c.send(settings(frame.InitialWindowSize, 0), window(0, 1<<30))
		}, 4 << 20},
		"uploads nobody reads": {func(c *peer) {
			c.send([]byte(frame.Preface), settings(frame.InitialWindowSize, 0))
			p := strings.Repeat("x", 10_000)
			for id := uint32(1); id < 200; id += 2 {
				c.send(c.post(id, "/deaf"), data(id, p, false))
			}
		}, 5 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, e *edge) {
				e.alive()
				before := heap()
				for range clients {
					tc.open(e.dialSilent())
				}
				synctest.Wait()
				after := heap()
				if e.upstream {
					tc.most += 5 << 20 // the streams' first windows, and net/http behind them
				}
				if n := (after - min(after, before)) / clients; n > tc.most {
					t.Errorf("a client costs %d KiB", n>>10)
				} else {
					t.Logf("a client costs %d KiB", n>>10)
				}
				if n := e.sw.Stats().Open; n < clients {
					t.Errorf("%d connections are open", n)
				}
				e.alive()
			})
		})
	}
}

// A client that asks for answers and does not read them is ended.
func TestAnswersNotRead(t *testing.T) {
	for name, f := range map[string]func(c *peer, id uint32) []byte{
		"404":      func(c *peer, id uint32) []byte { return c.get(id, "/none") },
		"431":      func(c *peer, id uint32) []byte { return c.get(id, "/hello", "x", strings.Repeat("x", 1000), "y", "1") },
		"answers":  func(c *peer, id uint32) []byte { return c.get(id, "/hello") },
		"PING":     func(*peer, uint32) []byte { return frame.AppendPing(nil, false, pingData) },
		"SETTINGS": func(*peer, uint32) []byte { return frame.AppendSettings(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{limits: h2.Limits{HeaderBytes: 1 << 10}}, func(t *testing.T, e *edge) {
				c := e.dialSilent()
				c.send([]byte(frame.Preface), frame.AppendSettings(nil))
				before := heap()
				i := 0
				for ; i < 50_000 && c.try(f(c, uint32(2*i+1))) == nil; i++ {
					if i%50 == 0 {
						synctest.Wait() // else streams are only refused
					}
				}
				t.Logf("ended after %d", i)
				if n := heap(); n > before+8<<20 {
					t.Errorf("%d KiB", (n-before)>>10)
				}
				time.Sleep(3 * time.Second)
				if n := e.sw.Stats().Open; n != 0 {
					t.Errorf("%d connections are open", n)
				}
				e.alive()
			})
		})
	}
}

// More DATA than a window is an error of the window's owner.
func TestWindowOverrun(t *testing.T) {
	full := strings.Repeat("x", 1<<14)
	inBubble(t, options{}, func(_ *testing.T, e *edge) { // a stream's
		c := e.dial()
		c.send(c.post(1, "/deaf"), c.get(3, "/wait"))
		for range 16 + 1 + 4 + 1 { // the switch's, and net/http's, is full
			c.send(data(1, full, false))
		}
		for range 64 {
			if c.answer(1).reset != "" {
				break
			}
			_ = c.try(data(1, full, false))
		}
		c.wantReset(1, frame.FlowControlError)
		e.alive()
	})
	inBubble(t, options{limits: h2.Limits{ConnWindow: 1 << 17}}, func(_ *testing.T, e *edge) { // the connection's
		c := e.dial()
		for id := uint32(1); id < 40; id += 2 {
			_ = c.try(c.post(id, "/fake"), data(id, full, false))
		}
		c.wantGoAway(frame.FlowControlError)
		e.alive()
	})
}
