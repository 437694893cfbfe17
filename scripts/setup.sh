#!/usr/bin/env bash
# Installs the Debian packages that a target of the Makefile needs, when they are missing. Without arguments that are
# missing it does and prints nothing. It never starts or stops an nginx that was there before.
set -euo pipefail

usage() {
	echo "usage: $0 run|test|lint" >&2
	exit 2
}

[[ $# -eq 1 ]] || usage
nginx=(nginx-core libnginx-mod-http-lua libnginx-mod-stream lua-resty-core lua-resty-lrucache lua-cjson)
case $1 in
run) packages=("${nginx[@]}") ;;
# The race detector needs a C compiler; tests with two hosts use network namespaces.
test) packages=("${nginx[@]}" gcc libc6-dev iproute2) ;;
lint) packages=(gcc libc6-dev git shellcheck) ;;
*) usage ;;
esac

for tool in go node npm; do
	if ! command -v "$tool" >/dev/null; then
		echo "setup: $tool is not on the PATH: install Go 1.26 or newer and Node.js 20 or newer (README.md)" >&2
		exit 1
	fi
done

if ! command -v dpkg-query >/dev/null; then
	echo "setup: this is not a Debian system: install by hand what corresponds to: ${packages[*]}" >&2
	exit 1
fi

installed() {
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

missing=()
for package in "${packages[@]}"; do
	installed "$package" || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

root=()
if [[ $(id -u) -ne 0 ]]; then
	if ! command -v sudo >/dev/null; then
		echo "setup: these packages are missing and only root can install them: ${missing[*]}" >&2
		echo "setup: run it as root, install sudo, or: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	root=(sudo)
fi

nginx_was_there=no
if installed nginx-common; then
	nginx_was_there=yes
fi

# Debian starts what it installs: its nginx would take port 80. A policy of "no" (101) for as long as we install keeps it
# from that, where there is no policy yet.
policy=/usr/sbin/policy-rc.d
drop_policy() { :; }
if [[ $nginx_was_there == no && ! -e $policy ]]; then
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
	"${root[@]}" chmod 755 "$policy"
	drop_policy() { "${root[@]}" rm -f "$policy"; }
fi
trap drop_policy EXIT

apt_install() {
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" </dev/null
}

echo "setup: installing ${missing[*]}"
# The package lists may be there and old, or not there: only then they are fetched.
if ! apt_install; then
	echo "setup: fetching the package lists, then once more"
	"${root[@]}" apt-get update -q </dev/null
	apt_install
fi

if [[ $nginx_was_there == no && -d /run/systemd/system ]] && installed nginx-common; then
	echo "setup: nginx.service stays switched off; sluice starts an nginx of its own"
	"${root[@]}" systemctl disable --now nginx.service
fi
