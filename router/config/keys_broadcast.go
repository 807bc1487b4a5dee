package config

import (
	"regexp"
	"time"
)

const (
	keyBroadcast  = "broadcast"
	keyNamespaces = "namespaces"
	keyListen     = "listen"
	keyTokenFile  = "token_file"
	keyHistory    = "history_size"
	keyHistoryTTL = "history_ttl"
)

// ruleShape is who may publish or subscribe.
var ruleShape = regexp.MustCompile(`^(anyone|authenticated|nobody|named|claim:[^\s:=]{1,256}(=[^\s].{0,255})?)$`)

const broadcastAbout = "Messages to those who are connected, to any instance if there is `redis`. Routes lead to it with `broadcast: true`. See [broadcast](broadcast.md)."

var broadcastKeys = []key{
	{
		name: keyNamespaces, is: named(limitName, submapping()), need: true,
		about: "What channels of one prefix have in common: `news` is for `news:today`, and `default` for channels without a colon. A channel of none is unknown.",
	},
	{
		name: keyTokenFile, is: file(), without: "only clients publish",
		about: "File of tokens, a line for each, of at least 16 characters: who has one publishes to all channels, by REST and gRPC at `listen`. It is read at start and at a reload.",
	},
	{
		name: keyListen, is: hostPort(0), otherwise: "127.0.0.1:9903", with: []string{keyTokenFile},
		about: "Where publishers are served, in plaintext: REST below `/broadcast/`, and gRPC. Other addresses than loopback are a warning.",
	},
	{name: "message_size", is: size(1, 16<<20), otherwise: "64KiB", about: "The largest message."},
	{name: "channels", is: count(1, 100_000), otherwise: "128", about: "How many channels a connection may be subscribed to."},
	{name: "queue", is: size(1<<10, 1<<30), otherwise: "1MiB", about: "What may wait for a subscriber that is slow; then it is closed, with 1013."},
	{
		name: "gather", is: duration(0, time.Second), otherwise: "0s",
		about: "How long messages for a connection are collected, to leave together: less CPU for bursts, and that much later.",
	},
	{name: "origins", is: someOf(text(nil)), without: "the same host", about: "Origins of pages that may open its WebSockets: `https://app.example.com`, `https://*.example.com`, or `\"*\"` for all."},
}

const namespaceAbout = "Who may is said by rules, one of which must fit: `anyone`, `authenticated`, `nobody`, `named` (those whom the channel names: `inbox:#alice`), " +
	"`\"claim:role\"` (who has that claim) and `\"claim:role=editor\"` (with that value, or that among others)."

var namespaceKeys = []key{
	{name: keyHistory, is: count(1, 1_000_000), without: "no history", with: []string{keyHistoryTTL}, about: "How many messages a channel remembers."},
	{name: keyHistoryTTL, is: duration(time.Second, 365*day), with: []string{keyHistory}, about: "For how long."},
	{name: "recovery", is: boolean(), otherwise: "false", with: []string{keyHistory}, about: "`true` gives those who come back what they have missed, from the history, and lets subscribers read it."},
	{name: "presence", is: boolean(), otherwise: "false", about: "`true` keeps who is subscribed, for subscribers and publishers to ask."},
	{name: "join_leave", is: boolean(), otherwise: "false", about: "`true` tells subscribers who comes and goes."},
	{name: "publish", is: someOf(text(ruleShape)), without: "nobody but publishers with a token", about: "Which clients may publish."},
	{name: "subscribe", is: someOf(text(ruleShape)), without: "nobody", about: "Who may subscribe."},
}
