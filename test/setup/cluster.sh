# cluster.sh: a throw-away PostgreSQL cluster of the private installation, for the scripts here.
#
# Sourced after lib.sh, with Q3_AREA and PG_CONFIG set. A cluster is a folder of the work area:
# data/, log, and run/ with its socket, which only the servers' user (and root) can open. It listens
# on no address, so it can collide with nobody's port. Superuser: postgres, without a password.
# shellcheck shell=bash disable=SC2034

# Sets Q3_CLUSTER and Q3_SOCKET for the cluster NAME, existing or not. A socket's path may have 107
# bytes; where the work area's is too long, the socket lives in a folder of /tmp.
q3_cluster()
{
	Q3_CLUSTER=$Q3_AREA/$1
	Q3_SOCKET=$Q3_CLUSTER/run
	if [ "${#Q3_SOCKET}" -gt 80 ]; then
		Q3_SOCKET=$(readlink "$Q3_CLUSTER/run" || true)
	fi
}

# Makes and starts it; standard input holds lines for postgresql.conf.
q3_cluster_start()
{
	local bin user
	bin=$(q3_bindir)
	user=$(q3_user)
	q3_cluster_stop "$1"
	q3_area_dir "$1" fresh
	q3_cluster "$1"
	if [ "${#Q3_CLUSTER}" -gt 76 ]; then
		Q3_SOCKET=$(mktemp -d /tmp/qwen3dm.XXXXXX)
		ln -s "$Q3_SOCKET" "$Q3_CLUSTER/run"
	else
		mkdir -m 700 "$Q3_SOCKET"
	fi
	[ "$(id -u)" -ne 0 ] || chown "$user" "$Q3_SOCKET"
	q3_quietly "$1-initdb" q3_as_user "$bin/initdb" -D "$Q3_CLUSTER/data" -U postgres -A trust \
		-E UTF8 --no-locale --no-sync || return
	{
		cat <<-END
			listen_addresses = ''
			unix_socket_directories = '$Q3_SOCKET'
			unix_socket_permissions = 0700
			fsync = off
		END
		cat
	} >>"$Q3_CLUSTER/data/postgresql.conf"
	(cd / && q3_quietly "$1-start" q3_as_user "$bin/pg_ctl" -D "$Q3_CLUSTER/data" \
		-l "$Q3_CLUSTER/log" -w start) || {
		tail -n 20 "$Q3_CLUSTER/log" >&2
		return 1
	}
}

# Stops it if it runs, and removes a socket folder of ours outside the work area.
q3_cluster_stop()
{
	local socket
	q3_cluster "$1"
	if [ -f "$Q3_CLUSTER/data/postmaster.pid" ]; then
		(cd / && q3_as_user "$(q3_bindir)/pg_ctl" -D "$Q3_CLUSTER/data" -m fast -w stop \
			>>"$Q3_LOG/$1-stop.log" 2>&1) || true
	fi
	socket=$(readlink "$Q3_CLUSTER/run" 2>/dev/null || true)
	[ -z "$socket" ] || rm -rf "$socket"
}
