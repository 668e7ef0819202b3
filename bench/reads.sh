#!/usr/bin/env bash
# Linearizable GETs four ways, in alternating rounds, as a Markdown record:
#
#     cargo build --release && cargo build --release -p bench
#     bench/reads.sh > bench/records/$(date +%F)-reads.md
#
#     index      the leader asks a quorum, one round for all reads of a turn (the default)
#     lease      the leader answers alone while its lease holds (--lease-groups all)
#     follower   the node the client is connected to asks the leader for an index (READONLY)
#     led        by lease, each read sent to the node that leads its key (--by-slot)
#
# Every measurement starts three nodes in a fresh directory and fills them; connections go to all
# three nodes. Settings, by environment variable: OUTRIGGER, LOAD, DATA, MODES ("index lease
# follower led"), CONNECTIONS ("1 16 64 256"), ROUNDS (3), DURATION (5), WARMUP (1), PORT (27200).
set -euo pipefail
cd "$(dirname "$0")/.."

MODES=${MODES:-index lease follower led} CONNECTIONS=${CONNECTIONS:-1 16 64 256}
ROUNDS=${ROUNDS:-3} DURATION=${DURATION:-5} WARMUP=${WARMUP:-1} PORT=${PORT:-27200}

. bench/cluster.sh
begin reads

flags="--command get --value-size 256 --keys 20000 --warmup $WARMUP --duration $DURATION"
figure() { sed -n '/"median": {/,/}/p' "$data/run.json" | sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p"; }

for round in $(seq "$ROUNDS"); do
    for mode in $MODES; do
        arguments=()
        [ "$mode" != lease ] && [ "$mode" != led ] || arguments=(--serve-arg=--lease-groups=all)
        start_nodes "$OUTRIGGER" "$data/run" "$PORT" ${arguments[@]+"${arguments[@]}"}
        "$LOAD" --addr "$addrs" -c 16 --command set --value-size 256 --keys 20000 --fill \
            --warmup 0 -n 100 >/dev/null
        for connections in $CONNECTIONS; do
            readonly=()
            [ "$mode" != follower ] || readonly=(--readonly)
            [ "$mode" != led ] || readonly=(--by-slot)
            # shellcheck disable=SC2086 # flags is a list of words
            "$LOAD" --addr "$addrs" -c "$connections" $flags "${readonly[@]}" --seed "$round" \
                --server-pids "$pids" --json "$data/run.json" >"$data/run/load" 2>&1 ||
                { cat "$data/run/load" >&2; fail "the run of $mode failed"; }
            row="$mode $connections $round"
            for name in throughput_ops_per_s latency_p50_us latency_p99_us server_cpu_us_per_op; do
                row+=" $(figure $name)"
            done
            echo "$row" | tee -a "$data/results.tsv" >&2
        done
        stop_nodes
        rm -rf "$data/run"
    done
    # Who goes first changes.
    MODES="${MODES#* } ${MODES%% *}"
done

cat <<HEAD
# Linearizable GET by ReadIndex, by lease, by followers and by those who lead, $(date -u +%F)

| | |
|---|---|
$(commit_and_machine)
| rounds | $ROUNDS, alternating, $WARMUP s warm-up and $DURATION s measured; the table holds medians |
| command | \`load --addr … -c N $flags [--readonly|--by-slot] --seed ROUND\` |
| record | \`CONNECTIONS="$CONNECTIONS" ROUNDS=$ROUNDS DURATION=$DURATION WARMUP=$WARMUP bench/reads.sh\` |

Three nodes and the generator share the cores; connections are dealt out to all three nodes, so two of
three reads by index or lease are forwarded to the leader; \`led\` is by lease and asks the leader itself.

| connections | reads by | throughput, ops/s | p50, µs | p99, µs | server CPU, µs/op | throughput ÷ index | p99 ÷ index |
|--:|---|--:|--:|--:|--:|--:|--:|
HEAD
awk -v all="$CONNECTIONS" '
    { for (i = 4; i <= 7; i++) values[$1, $2, i] = values[$1, $2, i] " " $i }
    function median(list,    n, v, i, j, t) {
        n = split(list, v, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "–" }
    END {
        count = split(all, connections, " "); kinds = split("index lease follower led", named, " ")
        for (c = 1; c <= count; c++)
            for (s = 1; s <= kinds; s++) {
                n = connections[c]; name = named[s]
                if (values[name, n, 4] == "") continue
                for (i = 4; i <= 7; i++) m[i] = median(values[name, n, i])
                base = median(values["index", n, 4]); tail = median(values["index", n, 6])
                printf "| %d | %s | %.0f | %.0f | %.0f | %.1f | %s | %s |\n", n, name, m[4], m[5], m[6], m[7],
                    ratio(m[4], base), ratio(m[6], tail)
            }
    }' "$data/results.tsv"
echo
echo "Every run: mode, connections, round, ops/s, p50 µs, p99 µs, CPU µs/op"
echo
sed 's/^/    /' "$data/results.tsv"
