//go:build clients

package clients_test

import (
	"encoding/json"
	"testing"
)

// whoami is what the port says of a call.
type whoami struct {
	Protocol    string `json:"protocol"`
	HTTPVersion string `json:"http_version"`
	TLS         struct {
		Version       string `json:"version"`
		ALPN          string `json:"alpn"`
		SNI           string `json:"sni"`
		ClientSubject string `json:"client_subject"`
	} `json:"tls"`
}

// whoami sees to it that a client is known as the same in all protocols.
func (d *demo) whoami(t *testing.T) {
	var others struct {
		GRPC      whoami `json:"grpc"`
		WebSocket whoami `json:"websocket"`
	}
	out := d.node(t, "whoami")
	if err := json.Unmarshal([]byte(out), &others); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, c := range []struct {
		client, protocol, version, alpn string
		got                             whoami
	}{
		{"curl --http1.1", "http", "HTTP/1.1", "http/1.1", d.curlWhoami(t, "--http1.1")},
		{"curl --http2", "http", "HTTP/2.0", "h2", d.curlWhoami(t, "--http2")},
		{"grpc-js", "grpc", "HTTP/2.0", "h2", others.GRPC},
		{"ws", "websocket", "HTTP/1.1", "", others.WebSocket},
	} {
		want := whoami{Protocol: c.protocol, HTTPVersion: c.version}
		want.TLS.Version, want.TLS.ALPN, want.TLS.SNI, want.TLS.ClientSubject = "TLS 1.3", c.alpn, "localhost", "CN=alice"
		if c.got != want {
			t.Errorf("%s is known as %+v, want %+v", c.client, c.got, want)
		}
	}
}

// curlWhoami is whoami of a curl with the client certificate.
func (d *demo) curlWhoami(t *testing.T, flag string) (who whoami) {
	t.Helper()
	out := d.curls(t, flag, "--cert", d.certs+"/client.crt", "--key", d.certs+"/client.key", d.url("/api/whoami"))
	if err := json.Unmarshal([]byte(out), &who); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return who
}
