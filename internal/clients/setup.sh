#!/usr/bin/env bash
# Installs what make test-clients needs and this machine lacks: programs with
# apt, node's packages with npm. Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
need() { # a program, and the packages that bring it
	command -v "$1" >/dev/null || missing+=("${@:2}")
}
need curl curl
need nghttp nghttp2-client
need h2load nghttp2-client
need node nodejs npm
need chromium chromium
need redis-server redis-server
need nginx nginx-light
need haproxy haproxy
need promtool prometheus
need prometheus prometheus
# Debian's own Python: another one, first in PATH, has no grpcio.
/usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null ||
	missing+=(python3 python3-grpcio python3-protobuf)

if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "setup.sh: missing: ${missing[*]}. Installing them needs root: sudo make test-clients" >&2
		exit 1
	fi
	if ! command -v apt-get >/dev/null; then
		echo "setup.sh: missing: ${missing[*]}. Without apt-get you have to install them yourself." >&2
		exit 1
	fi
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

major=$(node -p 'process.versions.node.split(".")[0]')
if [ "$major" -lt 18 ]; then
	echo "setup.sh: node is $(node --version), the scripts need 18 or later" >&2
	exit 1
fi

# A stamp says which lock file node_modules is the result of.
for dir in "$PWD/node" "$PWD/../../client/js"; do
	cd "$dir"
	stamp=node_modules/.installed
	sum=$(sha256sum package.json package-lock.json)
	if [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
		npm ci --ignore-scripts --no-audit --no-fund
		echo "$sum" >"$stamp"
	fi
done
