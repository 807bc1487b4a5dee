//go:build race

package router_test

// raced says that the race detector is on.
const raced = true
