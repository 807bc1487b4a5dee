package doctor

import (
	"fmt"
	"strings"
	"time"
)

// Text is a report for people. It ends with a line break.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, in %v\n", r.Address, r.Took.Round(100*time.Millisecond))
	from := ""
	for _, c := range r.Checks {
		if c.From != from {
			from = c.From
			fmt.Fprintf(&b, "\n%s\n", from)
		}
		fmt.Fprintf(&b, "  %-7s  %-22s  %s\n", c.Status, c.Name, c.Saw)
		if c.Why != "" {
			fmt.Fprintf(&b, "%35s%s\n", "", fold(c.Why, 35))
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d warn, %d fail, %d skipped\n", r.Count(OK), r.Count(Warn), r.Count(Fail), r.Count(Skipped))
	return b.String()
}

// fold breaks a text into lines of 100 columns, indented so far.
func fold(s string, indent int) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(s) {
		switch {
		case width == 0:
		case width+len(word) >= 100-indent:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	return b.String()
}
