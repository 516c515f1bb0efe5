#!/usr/bin/env bash
# Every target for SECONDS (600), JOBS (2) at once, from the corpora here and what was found before in WORK; a line for each with its executions.
# Needs cargo-fuzz; `cargo fuzz build -s none` before the first time. Exit 1 if a target failed: what failed it lies in WORK/TARGET.crash-*.
set -uo pipefail
cd "$(dirname "$0")/.."
export SECONDS_EACH=${SECONDS_EACH:-600} WORK=${WORK:-$(mktemp -d)}
export PROGRAMS=${CARGO_TARGET_DIR:-fuzz/target}/$(rustc -vV | sed -n 's/^host: //p')/release
# Targets make small files; memory is the fastest place for them.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
one() {
  mkdir -p "$WORK/$1"
  "$PROGRAMS/$1" "$WORK/$1" "fuzz/corpus/$1" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=3000 -max_len=16384 \
    -artifact_prefix="$WORK/$1." -print_final_stats=1 > "$WORK/$1.log" 2>&1
  local rc=$?
  echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$WORK/$1.log") executions, $(grep -ao 'cov: [0-9]* ft: [0-9]*' "$WORK/$1.log" | tail -n 1), exit $rc"
  return $rc
}
export -f one
{ (($#)) && printf '%s\n' "$@" || ls fuzz/corpus; } | xargs -P "${JOBS:-2}" -I{} bash -c 'one {}' || { echo "failed; see $WORK"; exit 1; }
