#!/usr/bin/env bash
# Fuzzes each target of a package for a while: tools/fuzz.sh DIR FUZZTIME [FLAGS of the build]. The
# package is built once for all of them, as go test -fuzz does for each, and what was found before is where that keeps it. Before
# Go 1.27 the fuzzing coordinator may take the end of -fuzztime for a failure and say no more than
# "context deadline exceeded" (golang/go#75804): that alone is let pass. An input that fails is
# written to testdata, and said to be; a target that hangs is said to hang.
set -uo pipefail
dir=$1 fuzztime=$2
shift 2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go test "$@" -c -fuzz . -o "$tmp/fuzz.test" "$dir" || exit 1
cache=$(go env GOCACHE)/fuzz/$(go list "$@" "$dir") || exit 1
cd "$dir" || exit 1
targets=$("$tmp/fuzz.test" -test.list '^Fuzz' | grep '^Fuzz') || exit 1
for target in $targets; do
	echo "fuzz $target in $dir"
	"$tmp/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$fuzztime" -test.fuzzminimizetime 10x \
		-test.fuzzcachedir "$cache" -test.paniconexit0 2>&1 | tee "$tmp/log"
	status=${PIPESTATUS[0]}
	[ "$status" = 0 ] && continue
	if grep -A1 '^--- FAIL: Fuzz' "$tmp/log" | tail -1 | grep -qx '    context deadline exceeded' &&
		! grep -qE 'Failing input written|hung or terminated|panic:|DATA RACE' "$tmp/log"; then
		echo "fuzz.sh: no input failed; the end of -fuzztime was taken for a failure (golang/go#75804)"
		continue
	fi
	exit "$status"
done
