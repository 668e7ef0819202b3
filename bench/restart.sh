#!/usr/bin/env bash
# What a checkpoint costs a clean stop, and what it saves the next start. A Markdown record:
#
#     cargo build --release && cargo build --release -p bench
#     bench/restart.sh > bench/records/$(date +%F)-restart.md
#
# One node whose log is filled by SETs; then, in turn, a copy of its directory is stopped with a checkpoint and
# without one, and started again. Settings, by environment variable: OUTRIGGER, LOAD, DATA, OPERATIONS (2500000), VALUE (256),
# KEYS (100000), ROUNDS (3), PORT (27600).
set -euo pipefail
cd "$(dirname "$0")/.."

OPERATIONS=${OPERATIONS:-2500000} VALUE=${VALUE:-256} KEYS=${KEYS:-100000} ROUNDS=${ROUNDS:-3} PORT=${PORT:-27600}
. bench/cluster.sh
begin restart

ask() { # WORDS: the answer's first line, or nothing
    { exec 3<>"/dev/tcp/127.0.0.1/$PORT" && printf '%s\r\n' "$*" >&3 && read -r -t 1 line <&3 && echo "${line%$'\r'}"; } \
        2>/dev/null || true
}
start() { # DIR CHECKPOINT_MS: ms until the log is replayed and the node leads
    local began=${EPOCHREALTIME/./}
    "$OUTRIGGER" serve --id 1 --dir "$1" --client "127.0.0.1:$PORT" --peer "127.0.0.1:$((PORT + 1))" \
        --peers "1=127.0.0.1:$((PORT + 1))" --election-ms 100 --checkpoint-ms "$2" 2>>"$data/log" &
    up=$!
    until [[ $(ask DBSIZE) == :* ]]; do
        kill -0 "$up" 2>/dev/null || { cat "$data/log" >&2; fail "the node ended early"; }
        sleep 0.01
    done
    took=$(((${EPOCHREALTIME/./} - began) / 1000))
}
stop() {
    local began=${EPOCHREALTIME/./}
    kill -TERM "$up" && wait "$up" || fail "the node did not end well"
    up=
    took=$(((${EPOCHREALTIME/./} - began) / 1000))
}
log_mib() { du -cBM "$1"/core-*/*.seg | awk 'END { print $1 + 0 }'; }

start "$data/filled" 0
"$LOAD" --addr "127.0.0.1:$PORT" -c 64 -P 16 --value-size "$VALUE" --keys "$KEYS" --warmup 0 -n "$OPERATIONS" >/dev/null
stop
for round in $(seq "$ROUNDS"); do
    row="$round"
    for checkpoint_ms in 0 60000; do
        cp -r "$data/filled" "$data/run"
        sync
        start "$data/run" "$checkpoint_ms"
        stop
        row+=" $took $(log_mib "$data/run")"
        start "$data/run" "$checkpoint_ms"
        row+=" $took"
        stop
        rm -rf "$data/run"
    done
    echo "$row" | tee -a "$data/rows" >&2
done

cat <<HEAD
# A stop with a checkpoint, and the start after it, $(date -u +%F)

| | |
|---|---|
$(commit_and_machine)
| command | \`OPERATIONS=$OPERATIONS VALUE=$VALUE KEYS=$KEYS ROUNDS=$ROUNDS bench/restart.sh\` |

One node, one core, 16 groups; $OPERATIONS SETs of $VALUE bytes over $KEYS keys, then copies of its directory in turn. A stop takes from
SIGTERM to the end of the process; a start until it has replayed its log, leads, and has counted all its keys. An election, about
150 ms, is in each start. The files are in the page cache.

| round | without: stop, ms | log, MiB | start, ms | with: stop, ms | log, MiB | start, ms |
|--:|--:|--:|--:|--:|--:|--:|
$(awk '{ printf "| %d | %d | %d | %d | %d | %d | %d |\n", $1, $2, $3, $4, $5, $6, $7 }' "$data/rows")
HEAD
