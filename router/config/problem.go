package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a file, or risky.
//
//nolint:errname // it is what its name says; Error is all of them
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

// How much of a long line an excerpt shows, and how much of that before the place.
const (
	excerptWidth = 160
	excerptAhead = 60
)

// excerpt is the line of the file and the caret, each after a line break. What
// a terminal might obey is replaced. Columns count characters.
func (p Problem) excerpt() string {
	var line, indent strings.Builder
	from := 1
	if utf8.RuneCountInString(p.Source) > excerptWidth {
		from = max(1, p.Pos.Col-excerptAhead)
	}
	col := 0
	for _, r := range p.Source {
		if col++; col < from {
			continue
		}
		if col >= from+excerptWidth {
			break
		}
		if r != '\t' && !unicode.IsPrint(r) {
			r = utf8.RuneError
		}
		line.WriteRune(r)
		switch {
		case col >= p.Pos.Col:
		case r == '\t':
			indent.WriteByte('\t') // as wide as the one above
		default:
			indent.WriteByte(' ')
		}
	}
	if strings.TrimSpace(line.String()) == "" {
		return ""
	}
	return fmt.Sprintf("\n    %s\n    %s^", line.String(), indent.String())
}
