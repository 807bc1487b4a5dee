package console

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
)

// What is said to a terminal.
const (
	clearScreen = "\x1b[H\x1b[2J"
	fullScreen  = "\x1b[?1049h\x1b[?25l\x1b[?7l" // no line wraps, however wide its characters are
	oldScreen   = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
	inverse     = "\x1b[7m"
	bold        = "\x1b[1m"
	plain       = "\x1b[0m"
)

// view is what "oneport top" shows, and what somebody has chosen by keys.
type view struct {
	addr   string
	now    *rates
	err    error // of the last time; what is shown is older then
	sort   int
	filter string
	typing bool   // a filter is being typed
	typed  string // so far
	cursor int    // the chosen connection, in the list
	top    int    // the first that is shown
}

// line is one of the screen.
type line struct {
	text  string
	style string
}

// lines draws the view. Height 0 is for as many as there are.
func (v *view) lines(width, height int) []line {
	lines := []line{{v.title(), bold}}
	if v.err != nil {
		lines = append(lines, line{Clean(v.err.Error()), inverse})
	}
	if v.now == nil {
		return clip(lines, width, height)
	}
	lines = append(lines, line{v.states(), ""}, line{})
	for i, text := range v.protocols() {
		lines = append(lines, line{text, heading(i)})
	}
	for i, text := range v.upstreams() {
		if i == 0 {
			lines = append(lines, line{})
		}
		lines = append(lines, line{text, heading(i)})
	}
	lines = append(lines, line{})
	room := 0
	if height > 0 {
		room = max(2, height-len(lines)-1)
	}
	lines = append(lines, v.conns(room)...)
	if height > 0 {
		lines = append(clip(lines, width, height-1), line{v.foot(), inverse})
	}
	return clip(lines, width, height)
}

func heading(i int) string {
	if i == 0 {
		return bold
	}
	return ""
}

func clip(lines []line, width, height int) []line {
	for i := range lines {
		lines[i].text = cut(lines[i].text, width)
	}
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	return lines
}

func (v *view) title() string {
	text := "oneport " + v.addr
	s := v.stats()
	if s == nil {
		return Clean(text)
	}
	text = fmt.Sprintf("oneport %s  %s  up %s", s.GetVersion(), v.addr, ago(s.GetAt().AsTime().Sub(s.GetStarted().AsTime())))
	if was := v.before(); was != nil && v.now.seconds > 0 {
		text += fmt.Sprintf("  cpu %.0f%%", 100*max(0, s.GetCpuSeconds()-was.GetCpuSeconds())/v.now.seconds)
	}
	text += fmt.Sprintf("  memory %s  %d goroutines", size(float64(s.GetMemoryBytes())), s.GetGoroutines())
	if s.GetDraining() {
		text += "  DRAINING"
	}
	return Clean(text)
}

func (v *view) stats() *adminv1.Stats {
	if v.now == nil {
		return nil
	}
	return v.now.stats
}

func (v *view) before() *adminv1.Stats {
	if v.now == nil || v.now.was == nil {
		return nil
	}
	return v.now.was.stats
}

// states says how many connections there are, by state, and what goes over the wire.
func (v *view) states() string {
	count := v.stats().GetConnectionsByState()
	if count == nil { // without stats: of those that are listed
		count = make(map[string]uint64)
		for _, c := range v.now.conns {
			count[c.GetState()]++
		}
	}
	var all uint64
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(count)) {
		if n := count[state]; n > 0 {
			all += n
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	text := fmt.Sprintf("%d connections", all)
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if s, was := v.stats(), v.before(); s != nil && was != nil {
		text += fmt.Sprintf("   in %s/s  out %s/s", per(v.now.perSecond(was.GetBytesRead(), s.GetBytesRead())), per(v.now.perSecond(was.GetBytesWritten(), s.GetBytesWritten())))
	}
	return Clean(text)
}

// protocols is throughput by protocol.
func (v *view) protocols() []string {
	if v.stats() == nil {
		return []string{"this port does not give its counts"}
	}
	var rows [][]string
	for _, p := range v.stats().GetProtocols() {
		was := v.now.protocolBefore(p.GetProtocol())
		rate := func(get func(*adminv1.ProtocolStats) uint64) string {
			if was == nil {
				return "-"
			}
			return per(v.now.perSecond(get(was), get(p)))
		}
		row := []string{
			p.GetProtocol(), rate((*adminv1.ProtocolStats).GetCalls), rate((*adminv1.ProtocolStats).GetErrors), fmt.Sprint(p.GetInFlight()),
			took(0.5, was, p), took(0.99, was, p), "", "",
		}
		if p.GetProtocol() == "websocket" {
			row[6], row[7] = rate((*adminv1.ProtocolStats).GetMessagesIn), rate((*adminv1.ProtocolStats).GetMessagesOut)
		}
		rows = append(rows, row)
	}
	return table([]column{
		{"PROTOCOL", false},
		{"CALLS/S", true},
		{"ERRORS/S", true},
		{"OPEN", true},
		{"P50", true},
		{"P99", true},
		{"MSGS IN/S", true},
		{"MSGS OUT/S", true},
	}, rows, 0)
}

// took is a quantile as text: for the time between samples.
func took(q float64, was, is *adminv1.ProtocolStats) string {
	d, ok := quantile(q, was, is)
	if !ok || was == nil {
		return "-"
	}
	return "<" + d.Round(10*time.Microsecond).String()
}

// mostUpstreams is how many are shown: those that are down, and those with most calls.
const mostUpstreams = 5

func (v *view) upstreams() []string {
	was := make(map[string][2]int64)
	if v.now.was != nil {
		for _, u := range v.now.was.upstreams {
			_, calls, faults, _ := sum(u)
			was[u.GetName()] = [2]int64{calls, faults}
		}
	}
	list := slices.Clone(v.now.upstreams)
	slices.SortStableFunc(list, func(a, b *adminv1.Upstream) int {
		if a.GetDown() != b.GetDown() {
			if a.GetDown() {
				return -1
			}
			return 1
		}
		x, _, _, _ := sum(a)
		y, _, _, _ := sum(b)
		return int(y - x)
	})
	var rows [][]string
	for _, u := range list[:min(len(list), mostUpstreams)] {
		active, calls, faults, well := sum(u)
		old, known := was[u.GetName()]
		rate := func(was, is int64) string {
			if !known || v.now.seconds <= 0 {
				return "-"
			}
			return per(max(0, float64(is-was)/v.now.seconds))
		}
		state := fmt.Sprintf("%d/%d well", well, len(u.GetServers()))
		if u.GetDown() {
			state = "DOWN"
		}
		rows = append(rows, []string{
			u.GetName(), state, fmt.Sprint(active), rate(old[0], calls), rate(old[1], faults), fmt.Sprint(u.GetConnections()), fmt.Sprint(u.GetWaiting()),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	lines := table([]column{
		{"UPSTREAM", false},
		{"SERVERS", false},
		{"OPEN", true},
		{"CALLS/S", true},
		{"FAULTS/S", true},
		{"CONNS", true},
		{"WAITING", true},
	}, rows, 0)
	if more := len(list) - mostUpstreams; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

func sum(u *adminv1.Upstream) (active, calls, faults int64, well int) {
	for _, s := range u.GetServers() {
		active += s.GetActive()
		calls += s.GetCalls()
		faults += s.GetFaults()
		if !s.GetSick() && !s.GetEjected() {
			well++
		}
	}
	return active, calls, faults, well
}

// shown are the connections that the filter's words let through, in order.
func (v *view) shown() []*adminv1.Connection {
	if v.now == nil {
		return nil
	}
	_, words := parseFilter(v.filter)
	return slices.DeleteFunc(v.now.sorted(v.sort), func(c *adminv1.Connection) bool { return !has(c, words) })
}

// conns is the table of connections, with the chosen one in sight.
func (v *view) conns(room int) []line {
	list := v.shown()
	v.cursor = max(0, min(v.cursor, len(list)-1))
	first, last := 0, len(list)
	if room > 0 {
		n := room - 1
		v.top = max(0, min(v.top, v.cursor, len(list)-n))
		v.top = max(v.top, v.cursor-n+1)
		first, last = v.top, min(v.top+n, len(list))
	}
	rows := make([][]string, 0, last-first)
	for _, c := range list[first:last] {
		rows = append(rows, []string{
			c.GetRemote(), c.GetKind(), c.GetState(), age(c), per(v.now.in[c.GetId()]), per(v.now.out[c.GetId()]), fmt.Sprint(c.GetOpenCalls()), who(c), what(c),
		})
	}
	texts := table([]column{
		{"REMOTE", false},
		{"KIND", false},
		{"STATE", false},
		{"AGE", true},
		{"IN/S", true},
		{"OUT/S", true},
		{"CALLS", true},
		{"WHO", false},
		{"WHAT", false},
	}, rows, 0)
	lines := make([]line, len(texts))
	for i, text := range texts {
		lines[i] = line{text, heading(i)}
		if room > 0 && i > 0 && first+i-1 == v.cursor {
			lines[i].style = inverse
		}
	}
	return lines
}

// foot is the last line of the screen: what is typed, or the chosen connection, and the keys.
func (v *view) foot() string {
	if v.typing {
		return Clean("filter: " + v.typed + "_   (words, or state= protocol= user= remote= route= upstream=; Enter, Esc)")
	}
	text := fmt.Sprintf("q quit  s sort: %s  / filter", order[v.sort].name)
	if v.filter != "" {
		text += ": " + v.filter
	}
	if list := v.shown(); v.cursor < len(list) {
		c := list[v.cursor]
		text = fmt.Sprintf("%s  |  %d of %d, id %s %s", text, v.cursor+1, v.now.total, c.GetId(), c.GetTls().GetVersion())
	}
	return Clean(text)
}
