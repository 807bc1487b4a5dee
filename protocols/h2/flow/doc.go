// Package flow accounts for flow-control credit (RFC 9113, 5.2 and 6.9) across
// a switch: what a receiver gives is handed on to the sender, on another
// connection, with other windows. It does arithmetic and nothing else.
package flow
