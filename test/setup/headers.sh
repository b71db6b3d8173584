#!/usr/bin/env bash
# headers.sh: compiles the extension against the headers of every PostgreSQL release at hand.
#
#   headers.sh check    with /usr/include/postgresql/NN/server and build/headers/NN; -Werror
#   headers.sh fetch    unpacks the headers of the releases in Debian's later suites to build/headers,
#                       installing nothing: they come from the mirror that this machine's apt uses,
#                       through an apt configuration of our own under build/headers/apt
#
# "make headers-check" passes the sources and flags in EXTENSION_SRC and EXTENSION_FLAGS.
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"
headers=$Q3_BUILD/headers

# Major version and folder of every set of server headers, oldest first, each version once.
releases()
{
	local dir
	for dir in /usr/include/postgresql/*/server "$headers"/[0-9]*/usr/include/postgresql/*/server; do
		[ -f "$dir/postgres.h" ] || continue
		printf '%s %s\n' "$(basename "$(dirname "$dir")")" "$dir"
	done | sort -n -u -k1,1
}

check()
{
	local version dir source object checked="" failed=0
	mkdir -p "$headers"
	# Headers of a later Debian expect a C library that has these, and do not declare them.
	cat >"$headers/libc.h" <<-END
		#include <stddef.h>
		extern size_t strlcpy(char *to, const char *from, size_t size);
		extern size_t strlcat(char *to, const char *from, size_t size);
	END
	while read -r version dir; do
		for source in $EXTENSION_SRC; do
			object=$headers/objects/$version/$(basename "$source" .c).o
			mkdir -p "${object%/*}"
			# shellcheck disable=SC2086 # flags are words
			"${CC:-cc}" -std=gnu11 -O2 -Wall -Wmissing-prototypes -Wpointer-arith -Werror -fPIC \
				$EXTENSION_FLAGS -D_GNU_SOURCE -include "$headers/libc.h" -I"$dir" -I"${dir%/server}/../internal" \
				-c -o "$object" "$source" || failed=1
		done
		checked="$checked $version"
	done <<-END
		$(releases)
	END
	[ -n "$checked" ] || q3_die "no server headers found; 'make headers-fetch' gets some"
	q3_say "Compiled against the headers of PostgreSQL$checked."
	[ "$failed" -eq 0 ] || q3_die "some files do not compile without warnings; see above"
}

fetch()
{
	local apt=$headers/apt version deb
	q3_private_apt "$apt" "$(dpkg --print-architecture)" trixie sid
	for version in 17 18; do
		[ ! -d "$headers/$version" ] || continue
		(cd "$apt" && q3_quietly "headers-$version" "${Q3_APT[@]}" download "postgresql-server-dev-$version")
		deb=$(find "$apt" -maxdepth 1 -name "postgresql-server-dev-${version}_*.deb")
		dpkg -x "$deb" "$headers/$version"
		q3_say "PostgreSQL $version: headers of $(basename "$deb" .deb) in build/headers/$version"
	done
	rm -rf "$apt"
}

case ${1:-} in
	check | fetch) "$1" ;;
	*) q3_die "usage: headers.sh check|fetch" ;;
esac
