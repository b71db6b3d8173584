#!/usr/bin/env bash
# run.sh: what "make bench" and "make quality" run: bench.py and quality.py with a Python that has what they need.
#
#   run.sh bench [ENGINE]     BENCH=quick, BENCH_ROUNDS, BENCH_SIZES, QWEN3DM_BENCH_PYTHON: see bench.py
#   run.sh quality [ENGINE]   QUALITY_MODEL=FILE: another model than the demo's; it must be there already
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/../setup/lib.sh"

engine=$Q3_TOP/${2:-qwen3dm-engine}
q3_venv numpy gguf
case ${1:-} in
	bench) exec "$Q3_PYTHON" test/bench/bench.py "$engine" build/bench/peaks build/bench ;;
	quality)
		exec "$Q3_PYTHON" test/bench/quality.py "$engine" build/bench \
			--json build/bench/quality.json ${QUALITY_MODEL:+"$QUALITY_MODEL"}
		;;
	*) q3_die "usage: run.sh bench|quality [ENGINE]" ;;
esac
