#!/usr/bin/env bash
# arm.sh: builds the engine and its unit tests for 64-bit ARM with a cross compiler and runs them under
# qemu-user, as a processor without and as one with dot product instructions.
#
#   arm.sh [NAME...]    unit tests test_NAME, by default those of the kernels (kernels planes); then
#                       the engine's logits on small models against the reference
#
# Needs Debian: it installs the compiler and qemu-user where they are missing (as root or with sudo),
# and unpacks the libraries for ARM to build/arm/root, installing nothing. The unit tests run under
# AddressSanitizer (which finds no leaks under qemu) and UBSan.
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"
arm=$Q3_BUILD/arm
root=$arm/root
triplet=aarch64-linux-gnu
processors="cortex-a72 max" # without, with dot products

tools()
{
	local as_root=""
	command -v $triplet-gcc >/dev/null && command -v qemu-aarch64 >/dev/null && return
	command -v apt-get >/dev/null || q3_die "please install $triplet-gcc and qemu-aarch64"
	[ "$(id -u)" -eq 0 ] || as_root=sudo
	q3_say "Installing packages: gcc-$triplet qemu-user"
	q3_quietly arm-install $as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 \
		install --no-install-recommends gcc-$triplet libc6-dev-arm64-cross qemu-user
}

# The development packages and the libraries that they are for, of this machine's release.
libraries()
{
	local packages="libcmocka-dev libutf8proc-dev libcjson-dev libssl-dev" apt=$arm/apt package deb
	[ ! -e "$root/complete" ] || return 0
	rm -rf "$root"
	q3_private_apt "$apt" arm64 "$(. /etc/os-release && echo "$VERSION_CODENAME")"
	for package in $packages; do
		packages="$packages $(env APT_CONFIG="$apt/conf" apt-cache depends "$package" |
			sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' | grep -v '^libc6' | tr '\n' ' ')"
	done
	# shellcheck disable=SC2086 # a list of words
	(cd "$apt" && q3_quietly arm-libraries "${Q3_APT[@]}" download $packages)
	for deb in "$apt"/*.deb; do
		dpkg -x "$deb" "$root"
	done
	rm -rf "$apt"
	: >"$root/complete"
}

build()
{
	q3_quietly arm-build "$Q3_MAKE" -j"$(q3_jobs)" MACHINE=aarch64 BUILD=build/arm ENGINE=build/arm/qwen3dm-engine \
		ENGINE_CC="$triplet-gcc -isystem $root/usr/include -isystem $root/usr/include/$triplet -L$root/usr/lib/$triplet" \
		build/arm/qwen3dm-engine "${@/#/build/arm/san/test_}"
}

# Runs a program for ARM as the given processor. The sanitizers read their options from /proc, where
# the emulator's own environment is.
emulated()
{
	local processor=$1
	shift
	ASAN_OPTIONS=detect_leaks=0 qemu-aarch64 -cpu "$processor" -L /usr/$triplet \
		-E LD_LIBRARY_PATH="$root/usr/lib/$triplet" "$@"
}

unit_test()
{
	q3_quietly "arm-$2-$1" emulated "$1" "$arm/san/test_$2"
	q3_say "$1: test_$2: $(grep -c '  OK ' "$Q3_LOG/arm-$2-$1.log") passed"
}

# A test that leaves some kernels out says nothing about them.
all_were_tested()
{
	local processor=$1 line
	shift
	for line; do
		grep -q "^# $line\$" "$Q3_LOG/arm-kernels-$processor.log" ||
			q3_die "not \"$line\" as $processor; see build/log/arm-kernels-$processor.log"
	done
}

oracle()
{
	cat >"$arm/engine" <<-END
		#!/bin/sh
		exec qemu-aarch64 -cpu $1 -L /usr/$triplet -E LD_LIBRARY_PATH=$root/usr/lib/$triplet $arm/qwen3dm-engine "\$@"
	END
	chmod +x "$arm/engine"
	q3_quietly "arm-oracle-$1" "$Q3_PYTHON" test/models/check_logits.py "$arm/engine" "$arm/oracle" --only "$2"
	q3_say "$1: logits: $(tail -n 1 "$Q3_LOG/arm-oracle-$1.log")"
}

[ "$(uname -m)" != aarch64 ] || q3_die "this is such a machine: 'make unit' tests its kernels"
[ $# -gt 0 ] || set -- kernels planes
tools
libraries
build "$@"
failed=0
for name; do
	jobs=()
	for processor in $processors; do
		unit_test "$processor" "$name" &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do
		wait "$job" || failed=1
	done
done
[ "$failed" -eq 0 ] || exit 1
case " $* " in
	*" kernels "*)
		all_were_tested cortex-a72 "scalar: tested" "neon: tested" "neondot: not on this machine"
		all_were_tested max "scalar: tested" "neon: tested" "neondot: tested"
		;;
esac
q3_venv numpy gguf
oracle cortex-a72 "qwen3 Q8_0"
oracle max "qwen3 "
