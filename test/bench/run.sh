#!/usr/bin/env bash
# run.sh: what "make bench", "make eval" and "make quality" run: bench.py, rows.py, surface.py, evaluate_jobs.py and
# quality.py with a Python that has what they need, and those that ask through SQL with throw-away clusters.
#
#   run.sh bench [ENGINE]     BENCH=quick, BENCH_ROUNDS, BENCH_SIZES, QWEN3DM_BENCH_PYTHON: see bench.py;
#                             BENCH=rows, BENCH=surface, BENCH=modes: see rows.py, surface.py, modes.py
#                             (MODES_ROWS, MODES_SEED, MODES_ONLY)
#   run.sh eval [ENGINE]      EVAL_SEED (7), EVAL_ROWS (2000), EVAL_MODEL=FILE: see evaluate_jobs.py
#   run.sh quality [ENGINE]   QUALITY_MODEL=FILE: another model than SmolLM2; it must be there already
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/../setup/lib.sh"
# shellcheck source=test/setup/cluster.sh
. test/setup/cluster.sh

# Called through a trap.
# shellcheck disable=SC2317
stop_clusters()
{
	q3_cluster_stop bench
	q3_cluster_stop bench-plain
	q3_cluster_stop eval
	rm -rf "$Q3_AREA/bench" "$Q3_AREA/bench-plain" "$Q3_AREA/eval"
}

installation()
{
	q3_find_postgres || q3_die "no PostgreSQL with server headers was found; set PG_CONFIG"
	q3_area
	q3_quietly build "$Q3_MAKE" -j"$(q3_jobs)" PG_CONFIG="$PG_CONFIG" all
	test/setup/temp-install.sh
	trap stop_clusters EXIT
}

# A script on two clusters of this tree's build: one with the extension, one without the library to compare planning with.
on_clusters()
{
	local model demo socket
	installation
	model=$("$Q3_PYTHON" test/bench/bench.py --model 0.6B Q8_0 build/bench)
	model=$(q3_reachable "$model")
	demo=$(q3_reachable "$(test/setup/demo.sh model)")
	q3_cluster_start bench <<-END
		shared_preload_libraries = 'qwen3dm'
		qwen3dm.kv_cache_size = '${BENCH_ROWS_KV:-4GB}'
	END
	socket=$Q3_SOCKET
	q3_cluster_start bench-plain </dev/null
	"$Q3_PYTHON" "test/bench/$1" "$engine" build/bench/peaks build/bench --bin "$(q3_bindir)" \
		--socket "$socket" --plain-socket "$Q3_SOCKET" --model "$model" --demo-model "$demo"
}

# Accuracy and speed of both modes on the rows of the three jobs.
evaluation()
{
	local model
	installation
	model=$(q3_reachable "${EVAL_MODEL:-test/models/three-jobs-bf16.gguf}")
	q3_cluster_start eval <<-END
		shared_preload_libraries = 'qwen3dm'
		qwen3dm.model = '$model'
	END
	mkdir -p build/eval
	"$Q3_PYTHON" test/bench/evaluate_jobs.py --bin "$(q3_bindir)" --socket "$Q3_SOCKET" --seed "${EVAL_SEED:-7}" \
		--rows "${EVAL_ROWS:-2000}" --json "build/eval/seed-${EVAL_SEED:-7}.json"
}

# Mode auto beside the fixed ones.
modes()
{
	local model demo
	installation
	model=$(q3_reachable test/models/three-jobs-bf16.gguf)
	demo=$(q3_reachable "$(test/setup/demo.sh model)")
	q3_cluster_start eval <<-END
		shared_preload_libraries = 'qwen3dm'
		qwen3dm.kv_cache_size = '2GB'
	END
	mkdir -p build/bench
	"$Q3_PYTHON" test/bench/modes.py --bin "$(q3_bindir)" --socket "$Q3_SOCKET" --jobs-model "$model" --demo-model "$demo" \
		--rows "${MODES_ROWS:-10000}" --seed "${MODES_SEED:-11}" --only "${MODES_ONLY:-}" --json build/bench/modes.json
}

engine=$Q3_TOP/${2:-qwen3dm-engine}
q3_venv numpy gguf
case ${1:-}:${BENCH:-} in
	bench:rows) on_clusters rows.py ;;
	bench:surface) on_clusters surface.py ;;
	bench:modes) modes ;;
	eval:*) evaluation ;;
	bench:*) exec "$Q3_PYTHON" test/bench/bench.py "$engine" build/bench/peaks build/bench ;;
	quality:*)
		exec "$Q3_PYTHON" test/bench/quality.py "$engine" build/bench \
			--json build/bench/quality.json ${QUALITY_MODEL:+"$QUALITY_MODEL"}
		;;
	*) q3_die "usage: run.sh bench|eval|quality [ENGINE]" ;;
esac
