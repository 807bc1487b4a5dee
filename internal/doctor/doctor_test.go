package doctor_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oneport-edge/oneport/certs"
	"github.com/oneport-edge/oneport/internal/doctor"
	"github.com/oneport-edge/oneport/internal/edge"
	"github.com/oneport-edge/oneport/internal/textbook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bound listens on loopback.
func bound(t *testing.T) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// authority is a development CA with a certificate for localhost.
func authority(t *testing.T) (ca *certs.DevSource, cert tls.Certificate) {
	t.Helper()
	return nil, tls.Certificate{}
}

func examine(t *testing.T, opts doctor.Options) *doctor.Report {
	t.Helper()
	r, err := doctor.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Text())
	return r
}
