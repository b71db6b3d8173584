#!/usr/bin/env bash
# install-deps.sh: installs the Debian or Ubuntu packages that "make demo" and "make test" need.
#
# Only what is missing: with everything there it asks nobody and takes a moment. It makes no
# cluster, takes headers of the version that the server has where they are still to be had, and stops
# before an installation that would upgrade the server of a running cluster.
# Elsewhere than on Debian and Ubuntu it says what to install.
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"

base="gcc make libc6-dev libutf8proc-dev libcjson-dev libssl-dev libkrb5-dev zlib1g-dev
	libcmocka-dev libipc-run-perl python3 python3-venv ca-certificates"

elsewhere()
{
	cat >&2 <<-END
	qwen3dm: cannot install what is missing here: $1
	Please install, by your system's own means:
	  a C compiler (gcc 11 or later), make, Python 3 with venv and pip, Perl with IPC::Run and prove
	  PostgreSQL 14 to 18: server, client and server headers, with PGXS
	  the development files of utf8proc, cJSON, OpenSSL, MIT Kerberos (gssapi.h), zlib and cmocka
	and set PG_CONFIG to PostgreSQL's pg_config if it is not on the search path.
	END
	exit 1
}

# Without apt we can only look whether the parts are there.
look_only()
{
	local missing="" header
	command -v "${CC:-cc}" >/dev/null || missing="$missing cc"
	for header in utf8proc.h cjson/cJSON.h openssl/evp.h gssapi/gssapi.h cmocka.h; do
		printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <%s>\n' \
			"$header" | "${CC:-cc}" -fsyntax-only -x c - 2>/dev/null || missing="$missing $header"
	done
	perl -MIPC::Run -MTest::More -e 1 2>/dev/null || missing="$missing IPC::Run"
	python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
	q3_find_postgres || missing="$missing PostgreSQL-server-and-headers"
	[ -z "$missing" ] || elsewhere "$missing"
	exit 0
}

missing_of()
{
	local package
	for package; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
			installed) ;;
			*) printf '%s ' "$package" ;;
		esac
	done
}

# The packages of PostgreSQL: of the newest server that is there, else of the distribution's own.
postgres_packages()
{
	local version
	version=$(q3_debian_versions | head -n 1)
	if [ -z "$version" ]; then
		version=$(apt-cache depends postgresql 2>/dev/null |
			sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
	fi
	if [ -n "$version" ]; then
		echo "postgresql-$version postgresql-client-$version postgresql-server-dev-$version"
	else
		echo "postgresql"
	fi
}

# A package of PostgreSQL in the version of the server that is installed, where that can be had.
matching()
{
	local package=$1 version=""
	case $package in
		postgresql-client-*|postgresql-server-dev-*)
			version=$(dpkg-query -W -f '${Version}' "postgresql-${package##*-}" 2>/dev/null) || true
			;;
	esac
	if [ -n "$version" ] && apt-cache madison "$package" 2>/dev/null | grep -qF " $version "; then
		package="$package=$version"
	fi
	echo "$package"
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

apt()
{
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 "$@"
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	look_only
fi

# shellcheck disable=SC2086 # a list of words
missing=$(missing_of $base)
if ! q3_find_postgres; then
	# shellcheck disable=SC2046
	missing="$missing$(missing_of $(postgres_packages))"
	[ -n "$missing" ] || missing=postgresql
fi
[ -n "${missing%% }" ] || exit 0

if [ "$(id -u)" -ne 0 ] && ! sudo -v; then
	q3_die "these packages are missing, and without sudo only root can install them: $missing"
fi
q3_quietly apt-update apt update || q3_say "The package lists could not be refreshed; trying with those that are here."
# shellcheck disable=SC2046,SC2086
missing="$(missing_of $base)$(q3_find_postgres || missing_of $(postgres_packages))"
# shellcheck disable=SC2046,SC2086
missing=$(for package in $missing; do matching "$package"; done | tr '\n' ' ')
q3_say "Installing packages: $missing"
# shellcheck disable=SC2086
q3_quietly apt-simulate apt-get -s install --no-install-recommends $missing ||
	elsewhere "apt-get cannot install them: $missing"

# A newer server package would restart the clusters that it runs: that is their owner's decision.
upgraded=$(sed -n 's/^Inst \(postgresql-[0-9][0-9]*\) \[.*/\1/p' "$Q3_LOG/apt-simulate.log")
if [ -n "$upgraded" ] && pg_lsclusters -h 2>/dev/null | grep -q ' online'; then
	q3_die "installing $missing would upgrade $upgraded, which restarts its clusters; please do that when it suits: apt-get install $missing"
fi

# A newly installed server makes itself a cluster unless this says no.
conf=/etc/postgresql-common/createcluster.d/qwen3dm-build.conf
as_root mkdir -p "${conf%/*}"
as_root sh -c "echo 'create_main_cluster = false' > $conf"
trap 'as_root rm -f "$conf"' EXIT
# shellcheck disable=SC2086
q3_quietly apt-install apt install --no-install-recommends $missing
