// Package encode is the HPACK encoder of the stream switch (RFC 7541). It does
// what golang.org/x/net/http2/hpack's does, faster where a switch needs it:
// the fields of one connection's calls are much the same, and most of their
// strings are even in the same place, because the decoder took them from its
// table. So it looks through the entries that it used last, and hashes nothing.
package encode
