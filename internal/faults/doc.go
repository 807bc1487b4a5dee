// Package faults puts "oneport serve" before three servers, and kills, stops and slows
// one of them under load: what do callers notice, and when is it left out and
// taken back? And it has the file replaced a hundred times under load. And it
// has ten thousand idle WebSockets and a gRPC flood beside a REST caller, as has a program that serves
// all itself. And it has Redis
// go away under a broadcast of two instances, and one of those. It takes minutes: make faults.
package faults
