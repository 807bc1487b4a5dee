//go:build clients

package redisstore

// make test-clients installs Redis, and asks for what takes seconds.
const asked = true
