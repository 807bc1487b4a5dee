package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"

	echov1 "github.com/oneport-edge/oneport/proto/oneport/echo/v1"
	"github.com/oneport-edge/oneport/protocols"
)

// whoami is what the call in ctx knows of itself, whatever its protocol.
func whoami(ctx context.Context) *echov1.WhoamiResponse {
	call := protocols.CallFrom(ctx)
	if call == nil {
		return &echov1.WhoamiResponse{}
	}
	who := &echov1.WhoamiResponse{
		Protocol:     call.Protocol.String(),
		HttpVersion:  call.Version,
		Remote:       call.Conn.Remote.String(),
		Identity:     new(string), // nobody is known yet
		RequestId:    call.RequestID(),
		TraceId:      call.TraceID(),
		ConnectionId: call.Conn.ID,
	}
	if state := call.Conn.TLS; state != nil {
		who.Tls = &echov1.TLS{
			Version:       tls.VersionName(state.Version),
			Alpn:          new(state.NegotiatedProtocol),
			Sni:           new(state.ServerName),
			ClientSubject: new(string),
		}
		if len(state.PeerCertificates) > 0 {
			who.Tls.ClientSubject = new(state.PeerCertificates[0].Subject.String())
		}
	}
	return who
}

// whoamiJSON is whoami as grpcurl prints it, on one line.
func whoamiJSON(ctx context.Context) ([]byte, error) {
	b, err := protojson.Marshal(whoami(ctx))
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer // protojson varies its white space on purpose
	err = json.Compact(&line, b)
	return line.Bytes(), err
}
