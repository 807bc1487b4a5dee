package accesslog

import "time"

// clock writes times as RFC 3339 has them, with nanoseconds, as time.RFC3339Nano does. What is the same
// within a second it keeps: the rest is a quarter of the work.
type clock struct {
	second int64
	date   []byte // to the second; empty before the first time
	zone   []byte
}

// append adds a time.
func (c *clock) append(b []byte, t time.Time) []byte {
	if s := t.Unix(); s != c.second || len(c.date) == 0 {
		c.second = s
		c.date = t.AppendFormat(c.date[:0], "2006-01-02T15:04:05")
		c.zone = t.AppendFormat(c.zone[:0], "Z07:00")
	}
	b = append(b, c.date...)
	if n := t.Nanosecond(); n != 0 {
		var digits [10]byte
		digits[0] = '.'
		for i := 9; i > 0; i-- {
			digits[i] = byte('0' + n%10)
			n /= 10
		}
		last := 9
		for digits[last] == '0' {
			last--
		}
		b = append(b, digits[:last+1]...)
	}
	return append(b, c.zone...)
}
