// Package frame reads and writes HTTP/2 frames (RFC 9113, section 4 and 6). It
// knows their layout and nothing of connections or streams.
package frame
