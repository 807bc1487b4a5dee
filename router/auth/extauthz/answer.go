package extauthz

import (
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

// Fields of the messages that are read: envoy/service/auth/v3/external_auth.proto,
// envoy/config/core/v3/base.proto, envoy/type/v3/http_status.proto, google/rpc/status.proto.
const (
	answerStatus = 1 // CheckResponse
	answerDenied = 2
	answerOK     = 3
	answerError  = 5

	statusCode = 1 // google.rpc.Status

	deniedStatus  = 1 // DeniedHttpResponse
	deniedHeaders = 2
	deniedBody    = 3

	okHeaders = 2 // OkHttpResponse
	okRemove  = 5

	optionHeader = 1 // HeaderValueOption

	headerKey   = 1 // HeaderValue
	headerValue = 2
	headerRaw   = 3
)

// mostFields is how many fields an answer may set or remove.
const mostFields = 128

var (
	errMalformed = errors.New("extauthz: the answer is malformed")
	errEmpty     = errors.New("extauthz: the answer says neither yes nor no")
	errService   = errors.New("extauthz: the service says that it has failed")
)

// parseAnswer reads a CheckResponse. An answer lets a call in if its status says so, or, without
// one, its ok_response; one with neither is an error, where Envoy lets in.
func parseAnswer(b []byte) (auth.Verdict, error) {
	var a answer
	err := eachField(b, func(field protowire.Number, v value) error {
		switch {
		case !v.isBytes:
			return nil
		case field == answerStatus:
			a.hasStatus = true
			return eachField(v.bytes, func(field protowire.Number, v value) error {
				if field == statusCode && !v.isBytes {
					a.code = int32(v.number)
				}
				return nil
			})
		case field == answerDenied: // of a oneof the last counts
			a.which, a.ok = answerDenied, auth.Verdict{}
			return a.readDenied(v.bytes)
		case field == answerOK:
			a.which, a.denied = answerOK, auth.Verdict{}
			return a.readOK(v.bytes)
		case field == answerError:
			a.which = answerError
		}
		return nil
	})
	if err != nil {
		return auth.Verdict{}, err
	}
	return a.verdict()
}

type answer struct {
	hasStatus  bool
	code       int32
	which      protowire.Number // of the answers; 0 for none
	ok, denied auth.Verdict
}

func (a *answer) verdict() (auth.Verdict, error) {
	switch {
	case a.which == answerError:
		return auth.Verdict{}, errService
	case !a.hasStatus && a.which == 0:
		return auth.Verdict{}, errEmpty
	case a.code == 0 && (a.hasStatus || a.which == answerOK):
		v := auth.Verdict{}
		if a.which == answerOK {
			v = a.ok
		}
		v.Status = http.StatusOK
		return v, nil
	}
	v := auth.Verdict{}
	if a.which == answerDenied {
		v = a.denied
	}
	if v.Status == 0 {
		v.Status = http.StatusForbidden // as Envoy does
	}
	if v.Status >= 200 && v.Status <= 299 {
		return auth.Verdict{}, fmt.Errorf("extauthz: refused with status %d", v.Status)
	}
	return v, nil
}

func (a *answer) readDenied(b []byte) error {
	return eachField(b, func(field protowire.Number, v value) error {
		switch {
		case !v.isBytes:
			return nil
		case field == deniedStatus:
			return eachField(v.bytes, func(field protowire.Number, v value) error {
				if field == statusCode && !v.isBytes {
					a.denied.Status = int(int32(v.number))
				}
				return nil
			})
		case field == deniedHeaders:
			return readHeader(v.bytes, &a.denied)
		case field == deniedBody:
			a.denied.Text = string(v.bytes)
		}
		return nil
	})
}

func (a *answer) readOK(b []byte) error {
	return eachField(b, func(field protowire.Number, v value) error {
		switch {
		case !v.isBytes:
			return nil
		case field == okHeaders:
			return readHeader(v.bytes, &a.ok)
		case field == okRemove:
			if len(a.ok.Remove) == mostFields {
				return errMalformed
			}
			a.ok.Remove = append(a.ok.Remove, string(v.bytes))
		}
		return nil
	})
}

// readHeader reads a HeaderValueOption.
func readHeader(b []byte, into *auth.Verdict) error {
	if len(into.Fields) == mostFields {
		return errMalformed
	}
	var fd protocols.Field
	err := eachField(b, func(field protowire.Number, v value) error {
		if field != optionHeader || !v.isBytes {
			return nil
		}
		return eachField(v.bytes, func(field protowire.Number, v value) error {
			switch {
			case !v.isBytes:
			case field == headerKey:
				fd.Name = string(v.bytes)
			case (field == headerValue || field == headerRaw) && len(v.bytes) > 0:
				fd.Value = string(v.bytes)
			}
			return nil
		})
	})
	if err == nil && fd.Name != "" {
		into.Fields = append(into.Fields, fd)
	}
	return err
}

// value is a field's: bytes, or a number.
type value struct {
	isBytes bool
	bytes   []byte
	number  uint64
}

// eachField calls f with the fields of a message.
func eachField(b []byte, f func(field protowire.Number, v value) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		var v value
		switch kind {
		case protowire.BytesType:
			v.isBytes = true
			v.bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		default:
			if n = protowire.ConsumeFieldValue(field, kind, b); n >= 0 {
				b = b[n:]
				continue
			}
		}
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if err := f(field, v); err != nil {
			return err
		}
	}
	return nil
}
