package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxSize bounds a file, and with it what reading one costs.
const maxSize = 1 << 20

// Load reads and parses a file. What is wrong with its contents is an *Error; a
// file that cannot be read is another one.
func Load(path string) (*Config, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Read gives the text of a file, no more of it than Parse needs to refuse it.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return text, nil
}

// Parse reads text as the contents of the file name, which need not exist: it
// stands in problems, and relative paths are relative to its folder. What is wrong
// with the text is an *Error.
func Parse(name string, text []byte) (*Config, error) { return ParseIn(filepath.Dir(name), name, text) }

// ParseIn is Parse for a text whose relative paths are relative to another folder.
func ParseIn(dir, name string, text []byte) (*Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	w := &walker{file: name, dir: dir, getenv: os.LookupEnv}
	if len(text) > maxSize {
		w.problem(Pos{1, 1}, "", "the file is larger than 1 MiB")
		return nil, w.failed()
	}
	w.lines = strings.Split(string(text), "\n")
	c := &Config{File: name}
	if root := w.decode(text); root != nil {
		w.config(c, value{w: w, node: root})
	}
	if err := w.failed(); err != nil {
		return nil, err
	}
	c.Warnings, c.env = w.warnings, w.env
	sortProblems(c.Warnings)
	return c, nil
}

// decode gives the tree of a file, or nil after it has said what is wrong. What it
// gives has no anchors, aliases or tags in it.
func (w *walker) decode(text []byte) *yaml.Node {
	if !w.readable() {
		return nil
	}
	in, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		w.problem(Pos{1, 1}, "", err.Error())
		return nil
	}
	var doc, more yaml.Node
	switch err := in.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		w.problem(Pos{1, 1}, "", "the file is empty")
		return nil
	case err != nil:
		w.syntax(err)
		return nil
	}
	switch err := in.Load(&more); {
	case err == nil:
		w.problem(Pos{max(more.Line, 1), max(more.Column, 1)}, "", "a second document begins here: a file has one")
		return nil
	case !errors.Is(err, io.EOF):
		w.syntax(err)
		return nil
	}
	if w.forbidden(&doc); len(w.problems) > 0 {
		return nil
	}
	return doc.Content[0]
}

// readable looks for bytes that no editor shows: a line must be a line for all.
func (w *walker) readable() bool {
	for i, line := range w.lines {
		col := 0
		for j, r := range line {
			col++
			var what string
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(line[j:], "\ufffd"):
				what = "not UTF-8"
			case r == '\t' || r == '\r' && j == len(line)-1:
			case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
				what = fmt.Sprintf("control character %U", r)
			}
			if what != "" {
				w.problem(Pos{i + 1, col}, "", what)
				return false
			}
		}
	}
	return true
}

// syntax reports what is not YAML.
func (w *walker) syntax(err error) {
	pos, text := Pos{1, 1}, err.Error()
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		text = le.Message
		if le.ContextMsg != "" {
			text = le.ContextMsg + ": " + text
		}
		if le.Mark.Line > 0 {
			pos = Pos{le.Mark.Line, max(le.Mark.Column, 1)}
		}
	}
	text = "not YAML: " + text
	if strings.Contains(w.line(pos.Line), "${") {
		text += "; between braces and brackets ${NAME} needs quotes"
	}
	w.problem(pos, "", text)
}

// forbidden reports what a reader would have to expand in the head.
func (w *walker) forbidden(n *yaml.Node) {
	switch at := (Pos{n.Line, n.Column}); {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.problem(at, "", "anchors and aliases have no place here: write it out")
	case n.Style&yaml.TaggedStyle != 0:
		w.problem(at, "", "tags have no place here: a text that looks like something else goes in quotes")
	}
	for _, c := range n.Content {
		w.forbidden(c)
	}
}

// failed is the error of a file with problems.
func (w *walker) failed() error {
	if len(w.problems) == 0 {
		return nil
	}
	sortProblems(w.problems)
	if w.cut {
		last := w.problems[len(w.problems)-1]
		last.Path, last.Text = "", fmt.Sprintf("more is wrong than these %d problems", len(w.problems))
		w.problems = append(w.problems, last)
	}
	return &Error{Problems: w.problems}
}

func sortProblems(list []Problem) {
	slices.SortStableFunc(list, func(a, b Problem) int {
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Col - b.Pos.Col
	})
}
