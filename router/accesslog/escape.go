package accesslog

import (
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// asIs are the bytes that stand for themselves in a string of JSON.
var asIs = func() (is [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		is[c] = c != '"' && c != '\\'
	}
	return is
}()

// appendJSON adds a string of JSON (RFC 8259, 7). Beyond what that asks for it escapes what a terminal
// would act on (C1 controls, DEL, what turns the direction of writing) and what JavaScript takes for the
// end of a line; what is not UTF-8 becomes U+FFFD.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if asIs[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + size
		case r < 0xa0 || turns(r):
			b = append(append(b, s[start:i]...), '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	return append(append(b, s[start:]...), '"')
}

// appendText adds a value of key=value, in quotes if it needs them.
func appendText(b []byte, s string) []byte {
	plain := s != ""
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\'
	}
	if plain {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

// appendQuoted adds what stands between quotes in a common line. As Apache does, it writes what
// is not printable ASCII as \xhh.
func appendQuoted(b []byte, s string) []byte { return appendPlain(b, s, ' ') }

// appendWord is appendQuoted for what has no spaces.
func appendWord(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	return appendPlain(b, s, ' '+1)
}

func appendPlain(b []byte, s string, least byte) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < least || c >= 0x7f:
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// turns reports whether r has what is behind it read in another direction, or ends a line.
func turns(r rune) bool {
	return r >= '\u2028' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\u200e' || r == '\u200f' || r == '\u061c'
}
