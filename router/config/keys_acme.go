package config

import "regexp"

const acmeAbout = "The CA looks at port 443 of each domain, or at port 80, and must arrive at a listener: 443 at one with TLS, 80 at any. " +
	"See [operations](operations.md#certificates)."

// What a domain and the URL of a directory look like; walkers know more.
var (
	domainShape    = regexp.MustCompile(`^([A-Za-z0-9_-]{1,63}\.)+[A-Za-z0-9-]{1,63}$`)
	directoryShape = regexp.MustCompile(`^https://.`)
	emailShape     = regexp.MustCompile(`^[^@\s]+@[^@\s]+$`)
)

// acmeKeys are those of a CA that speaks ACME.
var acmeKeys = []key{
	{
		name: "domains", is: someOf(text(domainShape)), need: true,
		about: "Host names, each of which gets a certificate; the first is for clients that name none. No wildcards, no addresses.",
	},
	{name: "email", is: text(emailShape), without: "none is given", about: "What the CA may write to."},
	{
		name: "ca", is: text(directoryShape), otherwise: "https://acme-v02.api.letsencrypt.org/directory",
		about: "URL of the CA's directory.",
	},
	{
		name: "ca_roots", is: file(), without: "those of the system",
		about: "PEM file of the roots that the CA's own server is verified with, for a private one.",
	},
	{
		name: "storage", is: file(), otherwise: "certs/acme",
		about: "Directory of keys, certificates and the account. It is made if need be, for the user alone. Instances of oneport may share it.",
	},
	{
		name: "challenges", is: someOf(enum("tls-alpn-01", "http-01")), without: "`[tls-alpn-01, http-01]`",
		about: "How the CA may look, in the order of what is tried: `tls-alpn-01` at port 443, `http-01` at port 80.",
	},
	{
		name: "external_account", is: submapping(), without: "none",
		about: "An account that the CA has given you by other means, if it asks for one.",
	},
}

var externalAccountKeys = []key{
	{name: "key_id", is: text(nil), need: true, about: "What the CA calls the account."},
	{name: "mac_key_file", is: file(), need: true, about: "File of its key, in base64url as CAs give it."},
}
