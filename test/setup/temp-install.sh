#!/usr/bin/env bash
# temp-install.sh: a private PostgreSQL installation in the work area, with this tree's qwen3dm in it.
#
# PostgreSQL finds its libraries and shared files relative to the place of its own binary, so a copy
# of the programs in a tree of the same shape, with links to everything else, is an installation of
# its own: "make install" into it needs no rights on the system's PostgreSQL and changes nothing
# there. Prints nothing; the installation is $Q3_AREA/inst.
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"
q3_find_postgres || q3_die "no PostgreSQL with server headers was found; set PG_CONFIG"
q3_area

inst=$Q3_AREA/inst
bin=$("$PG_CONFIG" --bindir)
lib=$("$PG_CONFIG" --pkglibdir)
share=$("$PG_CONFIG" --sharedir)
version=$("$PG_CONFIG" --version)

# Links to all entries of folder $1 in $inst$1, less what an installed qwen3dm left there.
link_entries()
{
	mkdir -p "$inst$1"
	find "$1" -mindepth 1 -maxdepth 1 ! -name 'qwen3dm*' -exec ln -sfn -t "$inst$1" {} +
}

if [ "$(cat "$inst/.version" 2>/dev/null)" != "$version" ]; then
	rm -rf "$inst"
	mkdir -p "$inst$bin"
	for program in postgres initdb pg_ctl psql pg_config pg_isready pg_basebackup pg_controldata \
		pg_dump pg_dumpall pg_restore pg_receivewal pg_resetwal pg_rewind pg_upgrade pg_waldump \
		pg_verifybackup pgbench createdb dropdb; do
		[ ! -x "$bin/$program" ] || cp -L "$bin/$program" "$inst$bin/"
	done
	link_entries "$lib"
	rm -f "$inst$lib/bitcode"
	link_entries "$share"
	rm "$inst$share/extension"
	link_entries "$share/extension"
	echo "$version" >"$inst/.version"
fi
q3_quietly temp-install "$Q3_MAKE" -s install PG_CONFIG="$PG_CONFIG" DESTDIR="$inst"
