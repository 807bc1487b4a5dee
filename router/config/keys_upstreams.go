package config

// upstreamKeys are those of one upstream.
var upstreamKeys = []key{
	{
		name: "servers", is: someOf(serverURL()), need: true,
		about: "One URL; more than one are *for later*. The scheme says what the server speaks: `http`, `https`: HTTP/1.1, and with TLS what is negotiated; " +
			"`h2c`, `grpc`: HTTP/2 in plaintext; `grpcs`: HTTP/2 with TLS. With `+unix` the rest is the path of a socket: `grpc+unix:///run/app.sock`. " +
			"No path else, no query, no password.",
	},
	{name: "balance", later: true},
	{name: "health", later: true},
}
