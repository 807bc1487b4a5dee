// Package attacks makes trouble for a running port over HTTP/2, for ten seconds
// of each kind, and looks at what that does to its memory and to a bystander.
// It takes minutes, and quiet: make attacks.
package attacks
