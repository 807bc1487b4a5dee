package config

const adminAbout = "Where an operator looks at the process, and changes it; see [admin](admin.md). `listen`, `probes` or both."

var adminKeys = []key{
	{
		name: "listen", is: hostPort(0), without: "no admin API",
		about: "Where the admin API is, REST and gRPC in plaintext: a loopback address, as `127.0.0.1:9901`. " +
			"Changes need the token; so does all else with `plaintext`.",
	},
	{
		name: "probes", is: hostPort(0), without: "none",
		about: "A second address, which may be any: `:9902`. It serves `/healthz`, `/readyz` and `/metrics` alone, without a token.",
	},
	{
		name: "token_file", is: file(), without: "a new token at each start", with: []string{"listen"},
		about: "File with the token, of at least 16 characters. Without one a token is made, and the log says in which file it is.",
	},
	{
		name: "hosts", is: someOf(text(hostShape)), without: "loopback names and addresses alone", with: []string{"listen"},
		about: "Further names that the admin API may be asked by, without ports. Others are refused: pages that a browser shows can have any name lead to this machine.",
	},
	{
		name: "plaintext", is: boolean(), otherwise: "false", with: []string{"listen"},
		about: "`true` lets `listen` be an address that is not loopback, although tokens and users' names are then sent unencrypted: in a network of your own.",
	},
	{
		name: "pprof", is: boolean(), otherwise: "false", with: []string{"listen"},
		about: "`true` serves Go's profiles under `/debug/pprof/`, to who has the token.",
	},
}
