#!/usr/bin/env bash
# clean.sh: removes build/ with everything that the commands here have made: objects, the Python
# environment, the demo's cluster (stopped first), the private installation. The model cache stays.
set -eu
# shellcheck source=test/setup/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=test/setup/cluster.sh
. test/setup/cluster.sh

if [ -e "$Q3_BUILD/area" ] && q3_find_postgres; then
	q3_area
	for name in demo regress; do
		q3_cluster_stop "$name"
	done
	rm -rf "$Q3_AREA"
fi
rm -rf "$Q3_BUILD"
