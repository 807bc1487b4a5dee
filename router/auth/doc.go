// Package auth has guards that find out who asks, and whether they may.
package auth
