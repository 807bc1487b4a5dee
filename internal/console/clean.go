package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Clean is text as a terminal may be given it: control characters of both sets (C0, C1), what
// turns the direction of writing, and what is no UTF-8 become U+FFFD.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// escaped is JSON as a terminal may be given it. JSON itself escapes what is below U+0020;
// what else is not printable stands in texts alone, and is escaped too: the value is the same.
func escaped(json []byte) string {
	var b strings.Builder
	for _, r := range string(json) {
		switch {
		case r == '\n' || r >= ' ' && r < 0x7f || r > 0x7f && unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
