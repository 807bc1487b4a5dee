//go:build !linux

package systemd

import "time"

// monotonic: there is no systemd that would compare it.
func monotonic() time.Duration { return 0 }
