#!/usr/bin/env bash
# A flame graph of the steady write path: three nodes under SETs, sampled by perf, drawn as an SVG, with the functions
# that take most as a table.
#
#     bench/flame.sh OUT                OUT.svg and OUT.md
#
# Needs perf and the right to use it (root, or kernel.perf_event_paranoid ≤ 1). Settings, by environment variable:
# CONNECTIONS (256), VALUE_SIZE (256), DURATION (8), FREQUENCY (499), PORT (27400), UP_ARGS (words for `outrigger up`).
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?usage: bench/flame.sh OUT, and OUT.svg and OUT.md are written}
CONNECTIONS=${CONNECTIONS:-256} VALUE_SIZE=${VALUE_SIZE:-256} DURATION=${DURATION:-8} FREQUENCY=${FREQUENCY:-499}
PORT=${PORT:-27400} target=${CARGO_TARGET_DIR:-target}
fail() { echo "flame: $*" >&2; exit 1; }
command -v perf >/dev/null || fail "perf is missing; apt-get install linux-perf"
# Frame pointers make stacks cheap to take and whole.
export RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes"
cargo build --release --quiet --target-dir "$target/flame"
cargo build --release --quiet --target-dir "$target/flame" --package bench
bin=$target/flame/release

data=$(mktemp -d "$(realpath "$target")/flame.XXXXXX")
up=
finish() {
    trap - EXIT
    [ -z "$up" ] || { kill -TERM "$up" 2>/dev/null || true; wait "$up" 2>/dev/null || true; }
    rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT TERM

# shellcheck disable=SC2086 # words on purpose
"$bin/outrigger" up --nodes 3 --dir "$data/nodes" --client-port "$PORT" --peer-port "$((PORT + 10))" ${UP_ARGS:-} \
    >"$data/log" 2>&1 &
up=$!
for _ in $(seq 300); do
    grep -qx ready "$data/log" && break
    kill -0 "$up" 2>/dev/null || { cat "$data/log" >&2; fail "the cluster ended early"; }
    sleep 0.1
done
pids=$(grep -o '"pid": *[0-9]*' "$data/nodes/cluster.json" | grep -o '[0-9]*$' | paste -sd,)
addrs=127.0.0.1:$PORT,127.0.0.1:$((PORT + 1)),127.0.0.1:$((PORT + 2))
"$bin/bench" --addr "$addrs" --connections "$CONNECTIONS" --value-size "$VALUE_SIZE" --warmup 2 \
    --duration "$DURATION" --server-pids "$pids" >"$data/load" &
load=$!
sleep 2.5
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
