// Package accesslog writes a line for each call, of all protocols, when it has ended.
//
// A [Log] is one of router.Server's Observers. Who serves a call does not wait for its line: that
// goes into a buffer with a bound, which one goroutine writes; what has no room is dropped, and
// counted. All that is in a line comes from strangers, and is escaped in every [Form]: one call
// is one line, whatever its path. The query is left out: tokens travel in it.
//
// [Handler] adds to other logs which call a line belongs to, by the same names.
package accesslog
