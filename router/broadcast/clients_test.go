//go:build clients

package broadcast_test

// make test-clients installs Redis, and asks for what takes seconds.
const asked = true
