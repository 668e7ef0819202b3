#!/usr/bin/env bash
# Compares Outrigger (three nodes), etcd (three members) and Redis (one copy, appendfsync always)
# with the same load generator, in alternating rounds, and prints a Markdown record:
#
#     cargo build --release && cargo build --release -p bench
#     bench/compare.sh > bench/records/$(date +%F)-$(hostname).md
#
# Every measurement starts its system in a fresh directory and stops it afterwards: nothing else
# of ours runs meanwhile, and the device's byte counter belongs to one system. Settings, by
# environment variable:
#
#     OUTRIGGER    the server binary                        target/release/outrigger
#     LOAD         the load generator                       target/release/bench
#     DATA         where data goes; one filesystem for all  a new directory under target/
#     SYSTEMS      what is compared, in order               "outrigger etcd redis"
#     CONNECTIONS  connection counts                        "1 16 64 256"
#     ROUNDS, DURATION, WARMUP, SEED                        3 rounds, 8 s after 2 s, seed 1
#     PORT         first of twenty ports                    27100
#     UP_ARGS      more arguments for `outrigger up`        none
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=${CARGO_TARGET_DIR:-target}
OUTRIGGER=${OUTRIGGER:-$TARGET/release/outrigger}
LOAD=${LOAD:-$TARGET/release/bench}
SYSTEMS=${SYSTEMS:-outrigger etcd redis}
CONNECTIONS=${CONNECTIONS:-1 16 64 256}
ROUNDS=${ROUNDS:-3} DURATION=${DURATION:-8} WARMUP=${WARMUP:-2} SEED=${SEED:-1}
PORT=${PORT:-27100}
UP_ARGS=${UP_ARGS:-}

fail() { echo "compare: $*" >&2; exit 1; }
note() { echo "compare: $*" >&2; }

for system in $SYSTEMS; do
    case $system in
        outrigger) [ -x "$OUTRIGGER" ] || fail "no $OUTRIGGER; run: cargo build --release" ;;
        etcd) command -v etcd >/dev/null || fail "etcd is missing; install the package etcd-server" ;;
        redis) command -v redis-server >/dev/null ||
            fail "redis-server is missing; install the package redis-server" ;;
        *) fail "unknown system '$system' in SYSTEMS; there are: outrigger etcd redis" ;;
    esac
done
[ -x "$LOAD" ] || fail "no $LOAD; run: cargo build --release -p bench"

if [ -z "${DATA:-}" ]; then
    mkdir -p "$TARGET"
    DATA=$(mktemp -d "$(realpath "$TARGET")/compare.XXXXXX")
    made_data=yes
else
    mkdir -p "$DATA"
    DATA=$(realpath "$DATA")
    made_data=no
fi
filesystem=$(findmnt -no FSTYPE -T "$DATA")
source=$(findmnt -no SOURCE -T "$DATA")
device=$(basename "$(realpath "${source%%\[*}")")
grep -qw "$device" /proc/diskstats || fail "$DATA is on $source, which is no block device"

started=()  # processes we started ourselves
pids=""     # server processes of the system being measured, separated by commas
addrs=""    # their client addresses

stop_system() {
    local pid
    for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}" ${pids//,/ }; do
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            # A zombie of ours stays until it is waited for.
            [ "$(ps -o stat= -p "$pid" | cut -c1)" = Z ] && break
            sleep 0.1
        done
        # Ten seconds were enough to stop in order; what is left is ours to end.
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    started=() pids="" addrs=""
    rm -rf "$DATA/run"
}
finish() {
    trap - EXIT INT TERM
    stop_system
    rm -f "$DATA/results.tsv" "$DATA/run.json"
    [ "$made_data" = no ] || rmdir "$DATA" 2>/dev/null || true
}
trap finish EXIT
trap 'finish; exit 130' INT TERM

start_outrigger() {
    # shellcheck disable=SC2086 # UP_ARGS is a list of words
    "$OUTRIGGER" up --nodes 3 --dir "$DATA/run/data" --client-port "$PORT" $UP_ARGS \
        >"$DATA/run/log" 2>&1 &
    started=($!)
    for _ in $(seq 300); do
        grep -qx ready "$DATA/run/log" && break
        kill -0 "${started[0]}" 2>/dev/null || { cat "$DATA/run/log" >&2; fail "up ended early"; }
        sleep 0.1
    done
    grep -qx ready "$DATA/run/log" || { cat "$DATA/run/log" >&2; fail "up is not ready after 30 s"; }
    local cluster=$DATA/run/data/cluster.json
    pids=$(grep -o '"pid": *[0-9]*' "$cluster" | grep -o '[0-9]*$' | paste -sd,)
    addrs=$(grep -o '"client": *"[^"]*"' "$cluster" | cut -d'"' -f4 | paste -sd,)
}

start_etcd() {
    local n peers="" logs="$DATA/run"
    for n in 1 2 3; do peers+=",n$n=http://127.0.0.1:$((PORT + 10 + n))"; done
    for n in 1 2 3; do
        local client=http://127.0.0.1:$((PORT + n)) peer=http://127.0.0.1:$((PORT + 10 + n))
        etcd --name "n$n" --data-dir "$DATA/run/n$n" --log-level error \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "${peers#,}" --initial-cluster-state new >"$logs/n$n.log" 2>&1 &
        started+=($!)
        pids+=",$!" addrs+=",${client#http://}"
    done
    pids=${pids#,} addrs=${addrs#,}
}

start_redis() {
    redis-server --port "$PORT" --bind 127.0.0.1 --dir "$DATA/run" --save '' \
        --appendonly yes --appendfsync always >"$DATA/run/log" 2>&1 &
    started=($!)
    pids=$! addrs=127.0.0.1:$PORT
}

target_of() { [ "$1" = etcd ] && echo etcd || echo resp; }

start_system() {
    mkdir -p "$DATA/run"
    "start_$1"
    # The generator itself is the test of readiness: one write through every address.
    for _ in $(seq 60); do
        "$LOAD" --target "$(target_of "$1")" --addr "$addrs" -c 3 -n 3 --warmup 0 --drain 1 \
            >/dev/null 2>&1 && return
        sleep 0.5
    done
    cat "$DATA/run/"*log >&2
    fail "$1 does not answer after 30 s"
}

flags="--command set --value-size 256 --random-values --keys 100000 --dist uniform"
flags+=" --warmup $WARMUP --duration $DURATION"

# figure NAME: a number of the last run's JSON, whose "median" is that run itself.
figure() {
    sed -n '/"median": {/,/}/p' "$DATA/run.json" | sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p"
}

measure() { # system connections round
    start_system "$1"
    # shellcheck disable=SC2086 # flags is a list of words
    "$LOAD" --target "$(target_of "$1")" --addr "$addrs" -c "$2" $flags --seed $((SEED + $3 - 1)) \
        --server-pids "$pids" --device "$device" --json "$DATA/run.json" >"$DATA/run/load" 2>&1 ||
        { cat "$DATA/run/load" >&2; fail "the run against $1 failed"; }
    local row="$1 $2 $3" name
    for name in throughput_ops_per_s latency_p50_us latency_p99_us server_cpu_us_per_op \
        device_write_bytes_per_op device_write_bytes_per_payload_byte unknown_outcomes_count; do
        row+=" $(figure $name)"
    done
    [ "$(wc -w <<<"$row")" = 10 ] && [[ $row != *null* ]] || fail "figures are missing: $row"
    echo "$row" >>"$DATA/results.tsv"
    note "$1, $2 connections, round $3: $(head -1 "$DATA/run/load")"
    stop_system
}

rm -f "$DATA/results.tsv"
for connections in $CONNECTIONS; do
    order=$SYSTEMS
    for round in $(seq "$ROUNDS"); do
        for system in $order; do measure "$system" "$connections" "$round"; done
        # Who goes first changes, so that no one always follows the same neighbour.
        order="${order#* } ${order%% *}"
        [ "$(wc -w <<<"$SYSTEMS")" -gt 1 ] || order=$SYSTEMS
    done
done

version() {
    case $1 in
        outrigger) echo "$("$OUTRIGGER" --version 2>/dev/null || echo outrigger), three nodes" ;;
        etcd) echo "$(etcd --version | head -1), three members" ;;
        redis) echo "$(redis-server --version | cut -d' ' -f1-3), one copy, appendfsync always" ;;
    esac
}
dirty=$(git status --porcelain --untracked-files=no 2>/dev/null | head -1)
cat <<HEAD
# 256-byte SET: $SYSTEMS, $(date -u +%F)

| | |
|---|---|
| commit | $(git rev-parse --short HEAD 2>/dev/null || echo unknown)${dirty:+, with local changes} |
| machine | $(hostname), $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(awk '/MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo) |
| kernel | $(uname -sr) |
| filesystem | $filesystem on $device |
| seed | $SEED (round r uses seed + r − 1) |
| rounds | $ROUNDS, alternating, ${WARMUP} s warm-up and ${DURATION} s measured; the table holds medians |
$(for system in $SYSTEMS; do echo "| $system | $(version "$system") |"; done)
| command | \`load --target … --addr … -c N $flags --seed …\` |
| record | \`SYSTEMS="$SYSTEMS" CONNECTIONS="$CONNECTIONS" ROUNDS=$ROUNDS DURATION=$DURATION WARMUP=$WARMUP SEED=$SEED${UP_ARGS:+ UP_ARGS="$UP_ARGS"} bench/compare.sh\` |

Closed loop, the generator on the same cores. Device bytes are the device's own counter: they
include the journal, and whatever else wrote to it meanwhile.

| connections | system | throughput, ops/s | p50, µs | p99, µs | server CPU, µs/op | device bytes/op | device bytes per payload byte | throughput ÷ etcd | p99 ÷ etcd |
|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|
HEAD
awk -v systems="$SYSTEMS" -v all="$CONNECTIONS" '
    { for (i = 4; i <= 9; i++) values[$1, $2, i] = values[$1, $2, i] " " $i; unknown += $10 }
    function median(list,    n, v, i, j, t) {
        n = split(list, v, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "–" }
    END {
        count = split(all, connections, " "); kinds = split(systems, named, " ")
        for (c = 1; c <= count; c++)
            for (s = 1; s <= kinds; s++) {
                n = connections[c]; name = named[s]
                for (i = 4; i <= 9; i++) m[i] = median(values[name, n, i])
                printf "| %d | %s | %.0f | %.0f | %.0f | %.1f | %.0f | %.2f | %s | %s |\n", n, name,
                    m[4], m[5], m[6], m[7], m[8], m[9],
                    ratio(m[4], median(values["etcd", n, 4])), ratio(m[6], median(values["etcd", n, 6]))
            }
        if (unknown) printf "\n%d operations had an unknown outcome.\n", unknown
    }' "$DATA/results.tsv"
echo
echo "Every run: system, connections, round, ops/s, p50 µs, p99 µs, CPU µs/op, device bytes/op, device bytes per payload byte, unknown outcomes"
echo
sed 's/^/    /' "$DATA/results.tsv"
