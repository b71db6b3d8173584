#!/usr/bin/env bash
# run-tests.sh: everything behind "make test", from nothing to prove's closing lines.
#
# Unit tests, fuzz corpora, the oracle and the regression tests leave their results as TAP files,
# which the last step hands to prove together with the server tests in test/t: one run, one count.
# Logs are in build/log, servers and their data in build/area.
#
#   run-tests.sh                        all of it
#   run-tests.sh server [t/NNN_x.pl...] builds, then only the server tests, or these of them
#   run-tests.sh regress                builds, then only the regression tests
#
# shellcheck disable=SC2317 # the functions that step runs look unreachable
set -eu
shopt -s nullglob
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=test/setup/cluster.sh
. test/setup/cluster.sh

started=$SECONDS

heading()
{
	q3_say "== $* ($((SECONDS - started)) s)"
}

# Turns a program's output and exit status into the TAP file NAME: its own ok lines, renumbered,
# everything else as comments, and one more test for the status, which also notices a leak or a
# crash after the last check.
as_tap()
{
	awk -v status="$2" '
		/^(not )?ok([ \t]|$)/ {
			good = $1 == "ok" || /# *SKIP/
			sub(/^(not )?ok[ \t]*[0-9]*[ \t]*(- )?/, "")
			print (good ? "ok " : "not ok ") ++n " - " $0
			next
		}
		/^1\.\.[0-9]+$/ || /^TAP version/ { next }
		{ print "# " $0 }
		END {
			print (status == 0 ? "ok " : "not ok ") ++n " - exit status " status
			print "1.." n
		}' >"$Q3_AREA/tap/$1.tap"
}

# Runs a command as the step NAME and keeps its result as TAP; shows the log of a failure at once.
step()
{
	local name=$1 status=0
	shift
	"$@" >"$Q3_LOG/$name.log" 2>&1 </dev/null || status=$?
	as_tap "$name" "$status" <"$Q3_LOG/$name.log"
	if grep -q '^not ok' "$Q3_AREA/tap/$name.tap"; then
		q3_say "   $name: FAILED; the end of build/log/$name.log:"
		tail -n 40 "$Q3_LOG/$name.log" | sed 's/^/      /'
	else
		q3_say "   $name: $(grep -c '^ok' "$Q3_AREA/tap/$name.tap") passed"
	fi
}

make_quietly()
{
	local name=$1
	shift
	q3_quietly "$name" "$Q3_MAKE" -j"$(q3_jobs)" PG_CONFIG="$PG_CONFIG" "$@"
}

# The module's dynamic symbols are PostgreSQL's entry points and names with our prefixes, nothing else.
exports()
{
	local strangers
	strangers=$(nm -D --defined-only qwen3dm.so | awk '{print $3}' |
		grep -vE '^(qwen3dm_|pg_finfo_|Pg_magic_func$|_PG_init$|_init$|_fini$)' || true)
	if [ -n "$strangers" ]; then
		echo "not ok - symbols without our prefix: $strangers"
		return 1
	fi
	echo "ok - the module exports nothing without our prefix"
}

# The corpora of a fuzz target through a plain main(), under the sanitizers.
corpus()
{
	local name=$1
	"$Q3_BUILD/san/fuzz_$name" "test/fuzz/corpus/$name" &&
		echo "ok - fuzz_$name survives the $(find "test/fuzz/corpus/$name" -type f | wc -l) files of its corpus"
}

# A line of its table for every model and tensor type becomes a test.
oracle()
{
	local status=0
	"$Q3_PYTHON" test/models/check_logits.py "$Q3_TOP/qwen3dm-engine" "$Q3_BUILD/oracle" \
		>"$Q3_BUILD/oracle.txt" || status=$?
	sed -E 's/^(.*[^ ]) +ok$/ok - \1/; s/^(.*[^ ]) +FAILED$/not ok - \1/' "$Q3_BUILD/oracle.txt"
	return "$status"
}

model()
{
	local file=$Q3_AREA/models/$1.gguf
	shift
	[ -f "$file" ] || {
		mkdir -p "$Q3_AREA/models"
		"$Q3_PYTHON" test/models/tiny_model.py --out "$file.new" "$@" && mv "$file.new" "$file"
	}
}

# The models of the server tests: one that answers at once, one that takes about a minute for
# everything it may say, so that something can happen meanwhile, one that thinks "ab" and then
# says "cd", whatever it is asked, and one for vectors of 64 coordinates.
models()
{
	model tiny --seed 7
	model embedding --L 2 --H 64 --F 128 --nh 2 --nkv 1 --seed 11
	model thinking --L 1 --chain 'Ċ <think> a b </think> c d <|im_end|>'
	model slow --L 16 --H 512 --F 1536 --nh 8 --nkv 4 --seed 7
}

# pg_regress, as "make installcheck" runs it, on a cluster as the README sets one up.
regression()
{
	local status=0
	q3_cluster_start regress <<-END
		shared_preload_libraries = 'qwen3dm'
		qwen3dm.model = '$Q3_AREA/models/tiny.gguf'
		qwen3dm.threads = 2
	END
	status=$?
	[ "$status" -eq 0 ] || return "$status"
	rm -rf "$Q3_BUILD/regress"
	mkdir -p "$Q3_BUILD/regress"
	PGHOST=$Q3_SOCKET PGUSER=postgres "$Q3_MAKE" -s installcheck PG_CONFIG="$PG_CONFIG" \
		EXTRA_REGRESS_OPTS="--outputdir=$Q3_BUILD/regress" >"$Q3_BUILD/regress/output" 2>&1 || status=$?
	q3_cluster_stop regress
	# "test name ... ok 12 ms" of PostgreSQL 15; later releases print TAP themselves.
	sed -E 's/^(test |parallel group.*:)? *([a-z0-9_]+) +\.\.\. ok +.*/ok - regress \2/
		s/^(test)? *([a-z0-9_]+) +\.\.\. (FAILED|failed).*/not ok - regress \2/' "$Q3_BUILD/regress/output"
	if [ "$status" -ne 0 ]; then
		tail -n 20 "$Q3_CLUSTER/log"
		cat "$Q3_BUILD/regress/regression.diffs" 2>/dev/null
	fi
	return "$status"
}

# The three jobs: their model, held-out rows and SQL.
jobs_files()
{
	local folder=$Q3_AREA/test-data/jobs job
	python3 "$Q3_TOP/test/models/write_rows.py" "$folder" --rows 160 --seed test
	cp "$Q3_TOP/test/models/three-jobs-bf16.gguf" "$folder/three-jobs.gguf"
	for job in payments machines triage; do
		mkdir "$folder/$job"
		cp "$Q3_TOP/test/models/jobs/$job"/*.sql "$folder/$job"
	done
}

# prove over the TAP files and test/t, as the servers' user.
server_tests()
{
	local pgxs demo
	pgxs=$(dirname "$(dirname "$("$PG_CONFIG" --pgxs)")")
	rm -rf "$Q3_AREA/t" "$Q3_AREA/test-data"
	cp -R "$Q3_TOP/test/t" "$Q3_AREA/t"
	mkdir "$Q3_AREA/test-data"
	cp "$Q3_TOP"/test/data/*.tsv "$Q3_AREA/test-data"
	jobs_files
	# Only if "make demo MODEL=smollm2" has fetched it.
	demo=$(find "$Q3_CACHE" -name 'SmolLM2-135M-Instruct.Q4_1.gguf' 2>/dev/null | head -n 1)
	[ -z "$demo" ] || demo=$(q3_reachable "$demo")
	q3_area_dir tmp fresh
	cd "$Q3_AREA"
	q3_as_user env -u MAKEFLAGS \
		PATH="$(q3_bindir):$PATH" \
		PERL5LIB="$pgxs/test/perl:$Q3_AREA/t" \
		PG_REGRESS="$pgxs/test/regress/pg_regress" \
		TESTDIR="$Q3_AREA/tmp" PG_TEST_PORT_DIR="$Q3_AREA/tmp/ports" \
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-60}" \
		Q3_TINY_MODEL="$Q3_AREA/models/tiny.gguf" Q3_SLOW_MODEL="$Q3_AREA/models/slow.gguf" \
		Q3_THINKING_MODEL="$Q3_AREA/models/thinking.gguf" \
		Q3_EMBEDDING_MODEL="$Q3_AREA/models/embedding.gguf" \
		Q3_DEMO_MODEL="$demo" Q3_TEST_DATA="$Q3_AREA/test-data" \
		Q3_JOBS="$Q3_AREA/test-data/jobs" \
		prove "$@"
}

unit_tests()
{
	local program
	heading "Unit tests, with AddressSanitizer and UBSan"
	for program in test/unit/test_*.c; do
		program=$(basename "$program" .c)
		CMOCKA_MESSAGE_OUTPUT=TAP step "unit_${program#test_}" "$Q3_BUILD/san/$program"
	done
	heading "Fuzz corpora"
	for program in test/fuzz/fuzz_*.c; do
		program=$(basename "$program" .c)
		step "$program" corpus "${program#fuzz_}"
	done
}

only=${1:-all}
[ $# -eq 0 ] || shift

heading "Packages"
test/setup/install-deps.sh
q3_find_postgres || q3_die "no PostgreSQL with server headers was found; set PG_CONFIG"
q3_area
q3_venv numpy gguf
rm -rf "$Q3_AREA/tap"
mkdir -p "$Q3_AREA/tap"

heading "Build with $("$PG_CONFIG" --version)"
make_quietly build all
test/setup/temp-install.sh
q3_quietly models models

if [ "$only" = all ]; then
	make_quietly build-unit unit-programs
	step exports exports
	step headers "$Q3_MAKE" -s headers-check PG_CONFIG="$PG_CONFIG"
	unit_tests
	heading "Logits against the reference in NumPy"
	step oracle oracle
fi
if [ "$only" != server ]; then
	heading "Regression tests"
	step regress regression
fi
if [ "$only" = regress ]; then
	if grep -q "^not ok" "$Q3_AREA/tap/regress.tap"; then
		exit 1
	fi
	exit 0
fi

heading "Server tests"
cd "$Q3_AREA"
tap=(tap/*.tap)
cd "$Q3_TOP/test"
[ $# -gt 0 ] || set -- t/*.pl
server_tests "${tap[@]}" "$@"
