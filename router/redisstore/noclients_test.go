//go:build !clients

package redisstore

const asked = false
