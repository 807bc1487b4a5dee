//go:build !race

package accesslog_test

const raced = false
