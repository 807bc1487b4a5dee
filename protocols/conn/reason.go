package conn

// Reason is why a connection was refused or closed: a bounded set, fit for a
// metric's label.
type Reason uint8

// The reasons. The first that is given for a connection counts.
const (
	ReasonDone             Reason = iota // served and closed in the ordinary way
	ReasonOverTotal                      // refused: too many connections in all
	ReasonOverPerIP                      // refused: too many from this client
	ReasonOverPreRoute                   // refused: too many not routed yet
	ReasonProxyMissing                   // a trusted peer sent no PROXY header
	ReasonProxyInvalid                   // a trusted peer sent a broken PROXY header
	ReasonSilent                         // closed without a byte: health checks, browsers' spare connections
	ReasonSilentTimeout                  // not a byte within the deadline
	ReasonFirstBytes                     // first bytes were incomplete at the deadline or at EOF
	ReasonUnknownBytes                   // first bytes of no protocol we speak
	ReasonPlainOnTLS                     // plaintext HTTP/2 on a TLS port
	ReasonTLSOnPlain                     // TLS on a plaintext port
	ReasonHello                          // no usable ClientHello: too big, malformed, cut off
	ReasonHelloTimeout                   // the ClientHello was not complete at the deadline
	ReasonHandshakeSlot                  // no handshake slot became free before the deadline
	ReasonNoALPN                         // offered only protocols we do not speak
	ReasonClientCert                     // client certificate missing or not acceptable
	ReasonHandshake                      // the handshake failed otherwise
	ReasonHandshakeTimeout               // the handshake was not finished at the deadline
	ReasonChallenge                      // a CA's TLS-ALPN challenge was answered: nothing else follows
	ReasonTunnelDial                     // passthrough: the upstream could not be reached
	ReasonKilled                         // closed by name
	ReasonDrained                        // closed because the server ends
	ReasonShed                           // closed while idle, because the process has enough
	numReasons
)

var reasonNames = [numReasons]string{
	"done", "over_total", "over_per_ip", "over_pre_route", "proxy_missing", "proxy_invalid",
	"silent", "silent_timeout", "first_bytes", "unknown_bytes", "plain_on_tls", "tls_on_plain",
	"hello", "hello_timeout", "handshake_slot", "no_alpn", "client_cert", "handshake", "handshake_timeout",
	"challenge", "tunnel_dial", "killed", "drained", "shed",
}

// String gives the reason in snake case.
func (r Reason) String() string {
	if r >= numReasons {
		return "invalid"
	}
	return reasonNames[r]
}

// Reasons lists all reasons, for tables and metrics.
func Reasons() []Reason {
	all := make([]Reason, numReasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}
