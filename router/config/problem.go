package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a file, or risky.
type Problem struct {
	File   string
	Pos    Pos
	Path   string // "routes[2].to"; empty for what concerns all of the file
	Text   string
	Source string // the line of the file
}

// Error gives the problem on one line: file:line:col: path: text.
func (p Problem) Error() string {
	if p.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Pos.Line, p.Pos.Col, p.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Pos.Line, p.Pos.Col, p.Path, p.Text)
}

// Error is everything that is wrong with a file, in the file's order.
type Error struct{ Problems []Problem }

// Error gives the problems one after the other, each with its line of the file
// and a caret below it.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.Error())
		b.WriteString(p.excerpt())
	}
	return b.String()
}

// excerpt is the line of the file and the caret, each after a line break.
func (p Problem) excerpt() string {
	if strings.TrimSpace(p.Source) == "" {
		return ""
	}
	return fmt.Sprintf("\n    %s\n    %s^", p.Source, indent(p.Source, p.Pos.Col))
}

// indent is as wide as what stands before column col of line. Columns count
// characters.
func indent(line string, col int) string {
	var b strings.Builder
	for _, r := range line {
		if col--; col < 1 {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
