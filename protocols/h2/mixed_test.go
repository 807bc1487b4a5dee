package h2_test

import (
	"strings"
	"testing"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols/h2/frame"
)

// Whoever waits for the connection's credit gets a turn at it, wherever the streams come from.
func TestTurnsAtTheConnectionsCredit(t *testing.T) {
	turns := func(function string) func(t *testing.T, e *edge) {
		return func(t *testing.T, e *edge) {
			c := e.dial(frame.Setting{ID: frame.InitialWindowSize, Value: 1 << 20})
			c.send(c.get(1, "/big?1000000"),
				c.call(3, "ServerStream", &echov1.ServerStreamRequest{Message: strings.Repeat("x", 10_000), Count: 100}),
				c.get(5, function+"/big?1000000"))
			var before [3]int
			for i := range before {
				before[i] = len(c.answer(uint32(1 + 2*i)).body)
			}
			for range 20 { // less than a frame for each
				c.send(window(0, 30_000))
				c.seen()
			}
			for i, n := range before {
				if got := len(c.answer(uint32(1+2*i)).body) - n; got < 100_000 {
					t.Errorf("stream %d has got %d bytes of 600,000", 1+2*i, got)
				}
			}
		}
	}
	inBubble(t, options{}, turns(""))
	t.Run("mixed", func(t *testing.T) { inBubble(t, options{mixed: true}, turns("/function")) })
}
