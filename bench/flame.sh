#!/usr/bin/env bash
# A flame graph of the steady write path: three nodes under SETs of keys that all exist, sampled by perf, drawn as an
# SVG, with the functions that take most as a table.
#
#     bench/flame.sh OUT                OUT.svg and OUT.md
#
# Needs perf and the right to use it (root, or kernel.perf_event_paranoid ≤ 1). Settings, by environment variable:
# CONNECTIONS (256), VALUE_SIZE (256), WARMUP (15), DURATION (8), FREQUENCY (499), PORT (27400), UP_ARGS (words for `outrigger up`).
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?usage: bench/flame.sh OUT, and OUT.svg and OUT.md are written}
CONNECTIONS=${CONNECTIONS:-256} VALUE_SIZE=${VALUE_SIZE:-256} WARMUP=${WARMUP:-15} DURATION=${DURATION:-8}
FREQUENCY=${FREQUENCY:-499}
PORT=${PORT:-27400}
. bench/cluster.sh
command -v perf >/dev/null || fail "perf is missing; apt-get install linux-perf"
# Frame pointers make stacks cheap to take and whole.
export RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes"
cargo build --release --quiet --target-dir "$TARGET/flame"
cargo build --release --quiet --target-dir "$TARGET/flame" --package bench
bin=$TARGET/flame/release
OUTRIGGER=$bin/outrigger LOAD=$bin/bench
begin flame

# shellcheck disable=SC2086 # words on purpose
start_nodes "$OUTRIGGER" "$data" "$PORT" ${UP_ARGS:-}
# Memory that grows is cleared by the kernel, which is not looked for here: all keys exist, and the caches of recent entries
# are full.
"$LOAD" --addr "$addrs" --connections 64 --value-size "$VALUE_SIZE" --fill --warmup 0 --duration 0.1 >/dev/null
"$LOAD" --addr "$addrs" --connections "$CONNECTIONS" --value-size "$VALUE_SIZE" --warmup "$WARMUP" \
    --duration "$DURATION" --server-pids "$pids" >"$data/load" &
load=$!
sleep "$WARMUP.5"
perf record --quiet --freq "$FREQUENCY" --call-graph fp --pid "$pids" --output "$data/perf" \
    -- sleep "$((DURATION - 2))"
wait "$load"
title="SET of $VALUE_SIZE bytes, $CONNECTIONS connections, three nodes, $(git rev-parse --short HEAD)"
perf script --input "$data/perf" 2>/dev/null |
    "$bin/flame" --title "$title" --table "$data/table" >"$out.svg"
{
    echo "# $title"
    echo
    cat "$data/table"
    printf '\n```\n%s\n```\n' "$(cat "$data/load")"
} >"$out.md"
echo "$out.svg and $out.md"
