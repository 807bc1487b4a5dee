// Package doctor asks a port what its clients would, and says what fails and why.
// It dials as curl with HTTP/1 and with HTTP/2, a gRPC client that speaks nothing but
// HTTP/2, a client without ALPN, a WebSocket client and a browser do:
//
//	report, err := doctor.Run(ctx, doctor.Options{Address: "127.0.0.1:8443"})
//	if err != nil {
//		return err // nobody listens there
//	}
//	for _, c := range report.Checks {
//		fmt.Println(c.Name, c.Status, c.Saw)
//	}
//
// It knows nothing of what it asks, and works against any server. Two rules keep it from
// false alarms: what is not there is skipped, with the reason; and where servers may
// differ, two answers of the same server are compared, as of a call alone on its
// connection and the same call behind one of another protocol.
//
// What a server says is read within bounds of bytes and time, and quoted where it is
// repeated: no answer can move the cursor of a terminal.
package doctor
