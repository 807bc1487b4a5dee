//go:build !unix

package nbio

import "errors"

const (
	supported = false
	sysRead   = 0
	sysWrite  = 1
)

func call(uintptr, []byte, uintptr) (int, error) { return 0, errors.ErrUnsupported }
