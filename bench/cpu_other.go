//go:build !unix

package main

import "errors"

func cpu() (int64, error) { return 0, errors.New("CPU time is measured on Unix systems only") }
