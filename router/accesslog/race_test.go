//go:build race

package accesslog_test

// raced says that the race detector is on.
const raced = true
