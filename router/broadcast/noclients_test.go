//go:build !clients

package broadcast_test

const asked = false
