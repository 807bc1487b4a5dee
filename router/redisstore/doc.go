// Package redisstore keeps in Redis what several instances count together. It is the one
// Redis client; a program that does not import it links none.
//
//	store, err := redisstore.Open(redisstore.Options{URL: "redis://127.0.0.1:6379/0", Password: password})
//	defer store.Close()
//	shared := limit.Share(store)
//	defer shared.Close()
//	api, err := limit.New(limit.Options{Name: "api", Rate: rate, Shared: shared})
//
// The rule: a call ends when its context does, whatever Redis does. Open does not connect; while Redis
// is away calls fail, and when it is back they do not.
//
// What it needs of Redis: version 5 or later, one server, sentinels or a cluster, and of an ACL
// EVALSHA, EVAL, TIME, GET, SET and PING on keys that begin with "oneport:". Redis' clock counts, so those of
// instances need not agree.
package redisstore
