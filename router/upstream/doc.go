// Package upstream reaches servers elsewhere: their HTTP/2 connections, which
// the streams of all clients share, and net/http's for everything else.
package upstream
