# lib.sh: what scripts/demo and scripts/test share.  Sourced by them, not run.
# shellcheck shell=bash

# What building both programs takes, by Debian 12's names.
BUILD_PACKAGES=(build-essential cmake ninja-build pkg-config libmicrohttpd-dev libzmq3-dev
	libsodium-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libcjson-dev
	libuv1-dev node-llhttp uthash-dev zlib1g-dev)

say() {
	printf '%s: %s\n' "${0##*/}" "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian starts a package's service when it is installed, but for this file's word.
SERVICE_POLICY=/usr/sbin/policy-rc.d

# without_services AS_ROOT... -- COMMAND...: no service is started by what it installs.
without_services() (
	as_root=()
	while [ "$1" != -- ]; do
		as_root+=("$1")
		shift
	done
	shift
	if [ ! -e "$SERVICE_POLICY" ]; then
		trap '"${as_root[@]}" rm -f "$SERVICE_POLICY"' EXIT
		printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$SERVICE_POLICY" >/dev/null
		"${as_root[@]}" chmod 755 "$SERVICE_POLICY"
	fi
	"${as_root[@]}" "$@"
)

# need_packages NAME...: installs those that are missing; calls apt only if some are.
need_packages() {
	local name missing=() as_root=()

	if ! command -v dpkg-query >/dev/null; then
		say "this is not Debian: what is needed must be there already (${*})"
		return
	fi
	for name in "$@"; do
		is_installed "$name" || missing+=("$name")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null ||
			die "missing packages; as root: apt-get install ${missing[*]}"
		as_root=(sudo)
	fi
	say "installing with apt-get: ${missing[*]}"
	"${as_root[@]}" apt-get update -q
	without_services "${as_root[@]}" -- env DEBIAN_FRONTEND=noninteractive \
		apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# configure PRESET [FLAG...]: build/PRESET is then ready to be built.
configure() {
	cmake --preset "$1" --log-level=WARNING "${@:2}" >/dev/null
}

# build PRESET [TARGET...]: all targets, or these, in build/PRESET.
build() {
	say "building build/$1"
	configure "$1" && cmake --build --preset "$1" ${2:+--target "${@:2}"}
}
