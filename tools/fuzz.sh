#!/usr/bin/env bash
# Runs go test with the arguments given, which fuzz one target. Before Go 1.27 the
# fuzzing coordinator may take the end of -fuzztime for a failure and say no more
# than "context deadline exceeded" (golang/go#75804): that alone is let pass. An
# input that fails is written to testdata, and said to be; a target that hangs
# is said to hang.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
if [ "$status" != 0 ] &&
	grep -A1 '^--- FAIL: Fuzz' "$log" | tail -1 | grep -qx '    context deadline exceeded' &&
	! grep -qE 'Failing input written|hung or terminated|panic:|DATA RACE' "$log"; then
	echo "fuzz.sh: no input failed; the end of -fuzztime was taken for a failure (golang/go#75804)"
	exit 0
fi
exit "$status"
