package console

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// column is how a column of a table is written.
type column struct {
	name  string
	right bool // numbers
}

// table writes rows, each column as wide as its widest cell, and each line at most so wide; 0
// is for any width. What is in a cell is cleaned here.
func table(columns []column, rows [][]string, width int) []string {
	wide := make([]int, len(columns))
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = c.name
	}
	all := append([][]string{head}, rows...)
	for _, row := range all {
		for i := range row {
			row[i] = Clean(row[i])
			wide[i] = max(wide[i], utf8.RuneCountInString(row[i]))
		}
	}
	lines := make([]string, 0, len(all))
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			if columns[i].right {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		lines = append(lines, cut(strings.TrimRight(b.String(), " "), width))
	}
	return lines
}

// cut makes a line so wide at most; 0 is for any width.
func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width])
}

// size is a number of bytes, or of anything else by the thousand: "12", "1.5K", "20M".
func size(n float64) string {
	units := " KMGTP"
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1024
		i++
	}
	unit := strings.TrimSpace(units[i : i+1])
	if i > 0 && n < 10 {
		return fmt.Sprintf("%.1f%s", n, unit)
	}
	return fmt.Sprintf("%.0f%s", n, unit)
}

// per is a rate: "0", "0.4", "12", "3.1K".
func per(n float64) string {
	if n > 0 && n < 9.95 {
		return fmt.Sprintf("%.1f", n)
	}
	return size(n)
}

// ago is a duration in its largest unit: "12s", "5m", "3h", "2d".
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
