package accesslog

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/oneport-edge/oneport/protocols"
)

// Form is how a line looks.
type Form uint8

// The forms.
const (
	JSON   Form = iota // an object, as log/slog writes it
	Text               // key=value, as log/slog writes it
	Common             // that of web servers, combined, with more fields behind it
	OTel               // an object, after OpenTelemetry's data model and semantic conventions
)

// Options configure a Log. Each zero value but Out is the default.
type Options struct {
	Form Form
	// Out is what is written to, by one goroutine: what has come within a tenth of a second, or
	// 64 KiB, at a time. Required.
	Out io.Writer
	// Buffer bounds the bytes that wait, and as many again that are being written. Zero means 1 MiB.
	Buffer int
	// Log is told at Warn how many lines were lost, and why, every 10 s at most. Nil discards.
	Log *slog.Logger
}

// Log writes lines. It is a [protocols.Observer], and safe for concurrent use.
type Log struct {
	opts  Options
	lines sync.Pool     // of *sheet
	wake  chan struct{} // a line waits
	full  chan struct{} // many do
	stop  chan struct{}
	once  sync.Once
	done  chan struct{}

	mu      sync.Mutex // guards the fields below
	waiting []byte
	count   int64 // of the lines in waiting
	stats   Stats
	closed  bool
}

// Stats are counts of lines.
type Stats struct {
	Written int64
	Dropped int64 // for want of room, or after Close
	Failed  int64 // that could not be written
}

const (
	defaultBuffer = 1 << 20
	// gatherFor is how long a line waits for others, and gatherMost how many bytes do. A write for
	// each line would cost more than all else about it.
	gatherFor  = 100 * time.Millisecond
	gatherMost = 64 << 10
	sayLost    = 10 * time.Second
)

// New begins a Log. Close ends it.
func New(opts Options) *Log {
	opts.Buffer = cmp.Or(opts.Buffer, defaultBuffer)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		opts: opts, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		lines: sync.Pool{New: func() any { return new(sheet) }},
	}
	go l.run() // Close waits for it
	return l
}

// Begin implements protocols.Observer.
func (l *Log) Begin(*protocols.Call) {}

// End implements protocols.Observer: it adds the call's line.
func (l *Log) End(call *protocols.Call, res protocols.Result) {
	s, _ := l.lines.Get().(*sheet)
	e := entry{call: call, res: res, clock: &s.clock}
	s.line = e.append(s.line[:0], l.opts.Form)
	l.add(s.line)
	if cap(s.line) <= mostLine {
		l.lines.Put(s)
	}
}

// sheet is where a line is made.
type sheet struct {
	line  []byte
	clock clock
}

// mostLine is the longest line whose buffer is kept.
const mostLine = 16 << 10

// add has a line written.
func (l *Log) add(line []byte) {
	l.mu.Lock()
	if l.closed || len(l.waiting)+len(line) > l.opts.Buffer {
		l.stats.Dropped++
		l.mu.Unlock()
		return
	}
	first, before := l.count == 0, len(l.waiting)
	l.waiting = append(l.waiting, line...)
	l.count++
	most := min(gatherMost, l.opts.Buffer/2)
	many := before < most && len(l.waiting) >= most
	l.mu.Unlock()
	if first {
		signal(l.wake)
	}
	if many {
		signal(l.full)
	}
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // it knows
	}
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close writes what waits, until ctx ends, and ends. Calls that end later have no lines. An
// error means that some lines may not be written: Out has not taken them in time.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run is the one that writes.
func (l *Log) run() {
	defer close(l.done)
	var spare []byte
	var said Stats
	var when time.Time
	var torn bool
	var why error
	for last := false; !last; {
		select {
		case <-l.wake:
			last = l.gather()
		case <-l.stop:
			last = true
		}
		var err error
		if spare, err = l.write(spare, &torn); err != nil {
			why = err
		}
		now := l.Stats()
		if lost := now.Dropped + now.Failed - said.Dropped - said.Failed; (lost > 0 || why != nil) && (last || time.Since(when) >= sayLost) {
			text := "lines of the access log are lost"
			if lost == 0 {
				text = "the access log is not where it should be"
			}
			l.opts.Log.Warn(text, "lines", lost, "dropped", now.Dropped, "failed", now.Failed, "err", why)
			said, when, why = now, time.Now(), nil
		}
	}
}

// gather waits for more lines, and reports whether none will come.
func (l *Log) gather() (last bool) {
	enough := time.NewTimer(gatherFor)
	defer enough.Stop()
	select {
	case <-enough.C:
	case <-l.full:
	case <-l.stop:
		return true
	}
	return false
}

// write writes all that waits, and gives the buffer that it was in, and the last error. The next
// line wakes again. torn says that the last line was written in part: another one begins behind a
// line break.
func (l *Log) write(spare []byte, torn *bool) (_ []byte, why error) {
	l.mu.Lock()
	out, n := l.waiting, l.count
	l.waiting, l.count = spare[:0], 0
	l.mu.Unlock()
	if n == 0 {
		return out, nil
	}
	if *torn {
		if _, why = l.opts.Out.Write([]byte{'\n'}); why == nil {
			*torn = false
		}
	}
	took, err := l.opts.Out.Write(out)
	written := n
	if err != nil {
		why = err
		took = min(max(took, 0), len(out))
		written = int64(bytes.Count(out[:took], []byte{'\n'}))
		*torn = took > 0 && out[took-1] != '\n' || took == 0 && *torn
	}
	l.mu.Lock()
	l.stats.Written += written
	l.stats.Failed += n - written
	l.mu.Unlock()
	return out, why
}
