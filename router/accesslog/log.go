package accesslog

import (
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
	// Log is told at Warn how many lines were lost, every 10 s at most. Nil discards.
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
func (l *Log) Begin(call *protocols.Call) {
	agent := call.Header("User-Agent")
	call.OnDone(func(res protocols.Result) { l.ended(call, agent, res) })
}

// ended adds a call's line.
func (l *Log) ended(call *protocols.Call, agent string, res protocols.Result) {
	s, _ := l.lines.Get().(*sheet)
	e := entry{call: call, res: res, agent: agent, now: time.Now(), clock: &s.clock}
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
	for last := false; !last; {
		select {
		case <-l.wake:
			last = l.gather()
		case <-l.stop:
			last = true
		}
		spare = l.write(spare)
		now := l.Stats()
		if lost := now.Dropped + now.Failed - said.Dropped - said.Failed; lost > 0 && (last || time.Since(when) >= sayLost) {
			said, when = now, time.Now()
			l.opts.Log.Warn("lines of the access log are lost", "lines", lost, "dropped", now.Dropped, "failed", now.Failed)
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

// write writes all that waits, and gives the buffer that it was in. The next line wakes again.
func (l *Log) write(spare []byte) []byte {
	l.mu.Lock()
	out, n := l.waiting, l.count
	l.waiting, l.count = spare[:0], 0
	l.mu.Unlock()
	if n == 0 {
		return out
	}
	_, err := l.opts.Out.Write(out)
	l.mu.Lock()
	if err != nil {
		l.stats.Failed += n
	} else {
		l.stats.Written += n
	}
	l.mu.Unlock()
	return out
}
