package console

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// TopOptions configures Top.
type TopOptions struct {
	// In and Out are the terminal. If one of them is none, Top prints a view each time.
	In  *os.File
	Out io.Writer
	// Once prints one view, of a second, and ends.
	Once bool
	// Filter is what to begin with, as it would be typed.
	Filter string
	// Every is how often to look. Zero means a second.
	Every time.Duration
}

// Top shows the port until ctx ends, or somebody types q.
func (c *Client) Top(ctx context.Context, opts TopOptions) error {
	if opts.Every <= 0 {
		opts.Every = time.Second
	}
	v := &view{addr: c.addr, filter: opts.Filter}
	screen, _ := opts.Out.(*os.File)
	if opts.Once || opts.In == nil || screen == nil || !term.IsTerminal(int(opts.In.Fd())) || !term.IsTerminal(int(screen.Fd())) {
		return c.topPlain(ctx, opts.Out, v, opts)
	}
	was, err := term.MakeRaw(int(opts.In.Fd()))
	if err != nil {
		return err
	}
	defer func() {
		_, _ = io.WriteString(opts.Out, plain+oldScreen) // if the terminal is gone nobody sees it
		_ = term.Restore(int(opts.In.Fd()), was)
	}()
	if _, err := io.WriteString(opts.Out, fullScreen); err != nil {
		return err
	}
	return c.topScreen(ctx, opts.In, opts.Out, v, opts.Every, func() (int, int) {
		width, height, err := term.GetSize(int(screen.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			return 80, 24
		}
		return width, height
	})
}

// look takes a sample, and has the view show it.
func (c *Client) look(ctx context.Context, v *view) {
	filter, _ := parseFilter(v.filter)
	v.take(c.sample(ctx, filter))
}

// take has the view show a sample; after an error it goes on to show the one before.
func (v *view) take(is *sample, err error) {
	if v.err = err; err != nil {
		return
	}
	var was *sample
	if v.now != nil {
		was = v.now.sample
	}
	v.now = compare(was, is)
}

// Width is how wide a terminal is; 0 if it is none.
func Width(f *os.File) int {
	if !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// topPlain prints views as lines.
func (c *Client) topPlain(ctx context.Context, w io.Writer, v *view, opts TopOptions) error {
	if c.look(ctx, v); v.err != nil {
		return v.err
	}
	tick := time.NewTicker(opts.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if c.look(ctx, v); v.err != nil {
			if ctx.Err() != nil {
				return nil // who looks has left
			}
			return v.err
		}
		var b strings.Builder
		for _, l := range v.lines(0, 0) {
			b.WriteString(l.text + "\n")
		}
		if !opts.Once {
			b.WriteString("\n")
		}
		if _, err := io.WriteString(w, b.String()); err != nil || opts.Once {
			return err
		}
	}
}

// topScreen draws views over one another, and does what keys say. Looking has a goroutine of
// its own, so that keys work while the port does not answer. The one that reads keys ends with
// in, or with the first key after the end: a read of a terminal cannot be broken off, and
// nothing comes after top but the end of the process.
func (c *Client) topScreen(ctx context.Context, in io.Reader, out io.Writer, v *view, every time.Duration, size func() (width, height int)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pressed := make(chan key)
	go readKeys(ctx, in, pressed)

	type looked struct {
		sample *sample
		err    error
	}
	results := make(chan looked, 1) // at most one is on its way
	begin := func() {
		filter, _ := parseFilter(v.filter)
		go func() {
			s, err := c.sample(ctx, filter)
			results <- looked{s, err}
		}()
	}
	busy := true
	defer func() {
		cancel()
		if busy {
			<-results
		}
	}()
	begin()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		width, height := size()
		if _, err := io.WriteString(out, screen(v.lines(width, height))); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case k, more := <-pressed:
			if !more || v.press(k) {
				return nil
			}
		case r := <-results:
			busy = false
			v.take(r.sample, r.err)
		case <-tick.C:
			if !busy {
				busy = true
				begin()
			}
		}
	}
}

// screen is what draws lines over those before, without a moment of nothing.
func screen(lines []line) string {
	var b strings.Builder
	b.WriteString(home)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if l.style != "" {
			b.WriteString(l.style + l.text + plain)
		} else {
			b.WriteString(l.text)
		}
		b.WriteString(clearLine)
	}
	b.WriteString(clearBelow)
	return b.String()
}

// key is one that was pressed: a character, or one with a name.
type key rune

const (
	keyUp key = -iota - 1
	keyDown
	keyPageUp
	keyPageDown
	keyEscape
	keyOther
)

// readKeys sends keys until there are no more, and closes the channel.
func readKeys(ctx context.Context, in io.Reader, to chan<- key) {
	defer close(to)
	r := bufio.NewReaderSize(in, 64)
	for {
		k, err := readKey(r)
		if err != nil {
			return
		}
		select {
		case to <- k:
		case <-ctx.Done():
			return
		}
	}
}

// readKey reads one. What a key with a name sends comes in one piece: an escape alone is the
// key of that name.
func readKey(r *bufio.Reader) (key, error) {
	c, _, err := r.ReadRune()
	if err != nil {
		return 0, err
	}
	if c != 0x1b || r.Buffered() == 0 {
		if c == 0x1b {
			return keyEscape, nil
		}
		return key(c), nil
	}
	if b, err := r.ReadByte(); err != nil || b != '[' && b != 'O' {
		return keyOther, err
	}
	for range 8 { // parameters, then the letter
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return 0, err
		case b == 'A':
			return keyUp, nil
		case b == 'B':
			return keyDown, nil
		case b == '5' || b == '6':
			if end, err := r.ReadByte(); err != nil || end != '~' {
				return keyOther, err
			}
			if b == '5' {
				return keyPageUp, nil
			}
			return keyPageDown, nil
		case b >= 0x40:
			return keyOther, nil
		}
	}
	return keyOther, nil
}

// mostTyped bounds a filter.
const mostTyped = 200

// press does what a key says, and reports whether that is to quit.
func (v *view) press(k key) bool {
	const interrupt, end = 3, 4 // Ctrl-C and Ctrl-D, which a raw terminal gives as they are
	if k == interrupt || k == end {
		return true
	}
	if v.typing {
		v.typeKey(k)
		return false
	}
	const page = 10
	switch k {
	case 'q', 'Q':
		return true
	case 's':
		v.sort = (v.sort + 1) % len(order)
	case '/':
		v.typing, v.typed = true, v.filter
	case keyEscape:
		v.filter = ""
	case keyUp, 'k':
		v.cursor--
	case keyDown, 'j':
		v.cursor++
	case keyPageUp:
		v.cursor -= page
	case keyPageDown:
		v.cursor += page
	default: // keyOther, and letters that mean nothing
	}
	v.cursor = max(0, v.cursor) // its end is where the list is drawn
	return false
}

func (v *view) typeKey(k key) {
	switch {
	case k == '\r' || k == '\n':
		v.typing, v.filter, v.cursor, v.top = false, strings.TrimSpace(v.typed), 0, 0
	case k == keyEscape:
		v.typing = false
	case k == 0x7f || k == '\b':
		_, n := utf8.DecodeLastRuneInString(v.typed)
		v.typed = v.typed[:len(v.typed)-n]
	case k > 0 && unicode.IsPrint(rune(k)) && len(v.typed) < mostTyped:
		v.typed += string(rune(k))
	}
}
