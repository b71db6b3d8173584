# lib.sh: what the setup scripts share: where things are, who runs the servers, how steps report.
#
# Sourced, never run. The caller has set -eu (bash). After sourcing, the working directory is the
# top of the tree, and:
#   Q3_BUILD   build/ of this tree, absolute
#   Q3_LOG     build/log, a file per step
#   Q3_MAKE    the make that called us
#   PG_CONFIG  exported; set by q3_find_postgres
# Nothing here writes outside build/, the work area (q3_area) and the model cache.
# shellcheck shell=bash disable=SC2034

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
Q3_TOP=$PWD
Q3_BUILD=$Q3_TOP/build
Q3_LOG=$Q3_BUILD/log
Q3_MAKE=${MAKE:-make}
Q3_CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/qwen3dm
# A caller's make passes its own flags and job server on; ours start anew.
unset MAKEFLAGS MFLAGS MAKELEVEL
# Whatever server the caller's shell points at is none of our business.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGSERVICE PGDATA PGPASSWORD PGOPTIONS
umask 022
mkdir -p "$Q3_LOG"

q3_say()
{
	printf '%s\n' "$*"
}

q3_die()
{
	printf 'qwen3dm: %s\n' "$*" >&2
	exit 1
}

q3_jobs()
{
	getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1
}

# Runs a command with its output in build/log/NAME.log; shows the end of the log when it fails.
q3_quietly()
{
	local name=$1 status=0
	shift
	"$@" >"$Q3_LOG/$name.log" 2>&1 </dev/null || status=$?
	if [ "$status" -ne 0 ]; then
		printf 'qwen3dm: "%s" failed (exit status %s); the end of %s:\n' \
			"$*" "$status" "build/log/$name.log" >&2
		tail -n 40 "$Q3_LOG/$name.log" | sed 's/^/    /' >&2
	fi
	return "$status"
}

# The pg_config of a PostgreSQL that has both a server and the server's headers; fails without one.
# The caller's PG_CONFIG wins; then Debian's layout, newest version first; then the search path.
q3_find_postgres()
{
	local candidate
	for candidate in ${PG_CONFIG:+"$PG_CONFIG"} \
		$(q3_debian_versions | sed 's,.*,/usr/lib/postgresql/&/bin/pg_config,') pg_config; do
		candidate=$(command -v "$candidate") || continue
		[ -x "$("$candidate" --bindir)/postgres" ] || continue
		[ -f "$("$candidate" --includedir-server)/postgres.h" ] || continue
		[ -f "$("$candidate" --pgxs)" ] || continue
		PG_CONFIG=$candidate
		export PG_CONFIG
		return 0
	done
	return 1
}

# Major versions of the PostgreSQL servers that Debian packages installed, newest first.
q3_debian_versions()
{
	local server
	for server in /usr/lib/postgresql/*/bin/postgres; do
		[ -x "$server" ] || continue
		server=${server#/usr/lib/postgresql/}
		server=${server%%/*}
		if [ "$server" -ge 14 ] && [ "$server" -le 18 ]; then
			echo "$server"
		fi
	done | sort -rn
}

# Who runs the servers: ourselves, or for root (which PostgreSQL refuses) an unprivileged user.
q3_user()
{
	if [ "$(id -u)" -ne 0 ]; then
		id -un
	elif id -u postgres >/dev/null 2>&1; then
		echo postgres
	else
		echo nobody
	fi
}

# Runs a command as that user.
q3_as_user()
{
	local user
	if [ "$(id -u)" -ne 0 ]; then
		"$@"
		return
	fi
	user=$(q3_user)
	if command -v setpriv >/dev/null 2>&1; then
		HOME=$Q3_AREA USER=$user LOGNAME=$user \
			setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"
	else
		HOME=$Q3_AREA runuser -u "$user" -- "$@"
	fi
}

# Makes Q3_AREA, the folder of everything that the servers' user must reach: the private
# installation, clusters, models, test files. It is build/area, or, where the tree lies in a folder
# which that user cannot enter (root's home, say), a folder of our own that build/area links to.
q3_area()
{
	local user link=$Q3_BUILD/area old
	user=$(q3_user)
	Q3_AREA=/
	if [ -L "$link" ]; then
		old=$(readlink "$link")
		if [ ! -d "$old" ] || [ ! -O "$old/.qwen3dm" ]; then
			rm "$link"
		fi
	fi
	if [ ! -e "$link" ]; then
		if [ "$(id -u)" -ne 0 ] || q3_as_user test -x "$Q3_BUILD" 2>/dev/null; then
			mkdir "$link"
		else
			old=$(mktemp -d /var/tmp/qwen3dm.XXXXXX)
			chmod 755 "$old"
			ln -s "$old" "$link"
		fi
		: >"$link/.qwen3dm"
	fi
	Q3_AREA=$(cd -P "$link" && pwd)
	[ "$(id -u)" -ne 0 ] || chown "$user" "$Q3_AREA"
	export Q3_AREA
}

# A folder of Q3_AREA that belongs to the servers' user, emptied when "fresh" is given.
q3_area_dir()
{
	local dir=$Q3_AREA/$1
	[ "${2:-}" != fresh ] || rm -rf "$dir"
	mkdir -p "$dir"
	[ "$(id -u)" -ne 0 ] || chown "$(q3_user)" "$dir"
}

# Puts a file where the servers' user can read it, and prints that path: the file itself when it is
# readable, else a hard link to it, else a copy.
q3_reachable()
{
	local file target
	file=$(readlink -f "$1")
	if q3_as_user test -r "$file" 2>/dev/null; then
		echo "$file"
		return
	fi
	target=$Q3_AREA/files/$(basename "$file")
	mkdir -p "$Q3_AREA/files"
	if [ ! "$target" -ef "$file" ] && ! cmp -s "$file" "$target"; then
		ln -f "$file" "$target" 2>/dev/null || cp "$file" "$target"
	fi
	chmod a+r "$target"
	echo "$target"
}

# The private installation's folder of programs; needs PG_CONFIG and Q3_AREA.
q3_bindir()
{
	echo "$Q3_AREA/inst$("$PG_CONFIG" --bindir)"
}

# A Python under build/venv with the named packages in it, which are also its modules' names.
q3_venv()
{
	local module
	Q3_PYTHON=$Q3_BUILD/venv/bin/python
	if ! "$Q3_PYTHON" -m pip --version >/dev/null 2>&1; then
		rm -rf "$Q3_BUILD/venv"
		q3_quietly venv python3 -m venv "$Q3_BUILD/venv" || return
	fi
	for module; do
		"$Q3_PYTHON" -c "import $module" 2>/dev/null || {
			q3_quietly venv-packages "$Q3_PYTHON" -m pip install -q "$@" || return
			break
		}
	done
}

# The Debian mirror that this machine's apt uses.
q3_debian_mirror()
{
	apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" 'Identifier: Packages' |
		sed -n 's/^Debian \(..*\)$/\1/p' | head -n 1
}

# An apt of our own in folder $1, for packages of architecture $2 of the Debian suites that follow:
# it downloads, and knows nothing of what is installed here. Sets Q3_APT, the command.
q3_private_apt()
{
	local apt=$1 arch=$2 uri suite keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	shift 2
	command -v apt-get >/dev/null || q3_die "this comes from Debian, and there is no apt here"
	uri=$(q3_debian_mirror)
	[ -n "$uri" ] || q3_die "apt knows no Debian mirror here; 'apt-get update' may help"
	rm -rf "$apt"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
	: >"$apt/sources"
	: >"$apt/status"
	for suite; do
		echo "deb [signed-by=$keyring] $uri $suite main" >>"$apt/sources"
	done
	cat >"$apt/conf" <<-END
		APT::Architecture "$arch";
		APT::Architectures { "$arch"; };
		APT::Sandbox::User "";
		Dir::Etc::SourceList "$apt/sources";
		Dir::Etc::SourceParts "$apt/parts";
		Dir::State::Lists "$apt/lists";
		Dir::State::status "$apt/status";
		Dir::Cache "$apt/cache";
	END
	Q3_APT=(env APT_CONFIG="$apt/conf" apt-get -q)
	q3_quietly "apt-$arch" "${Q3_APT[@]}" update
}
