package acme

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// A CA that cannot be reached is asked again soon, one that says no is not.
func TestBackoff(t *testing.T) {
	refused := fmt.Errorf("an order: %w", acme.Problem{Type: acme.ProblemTypeUnauthorized})
	for _, tc := range []struct {
		err      error
		failures int
		want     time.Duration
	}{
		{errors.New("refused"), 0, 10 * time.Second},
		{errors.New("refused"), 2, 40 * time.Second},
		{errors.New("refused"), 1000, 5 * time.Minute},
		{refused, 0, time.Minute},
		{refused, 1, 10 * time.Minute},
		{refused, 1000, time.Hour},
	} {
		if got := backoff(tc.err, tc.failures); got < tc.want || got > tc.want*11/10 {
			t.Errorf("%v after %d: %v, want %v", tc.err, tc.failures, got, tc.want)
		}
	}
}
