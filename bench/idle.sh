#!/usr/bin/env bash
# What idle connections cost a node: memory, processor time while nothing happens, and what busy ones notice. A Markdown
# record:
#
#     cargo build --release && cargo build --release -p bench
#     bench/idle.sh > bench/records/$(date +%F)-idle-connections.md
#
# Three nodes; all idle connections go to the first, each has said PING once. Settings, by environment variable: OUTRIGGER,
# LOAD, DATA, IDLE (9800), ROUNDS (3), DURATION (4), PORT (27500). Needs python3, and more than IDLE open files.
set -euo pipefail
cd "$(dirname "$0")/.."

IDLE=${IDLE:-9800} ROUNDS=${ROUNDS:-3} DURATION=${DURATION:-4} PORT=${PORT:-27500}
. bench/cluster.sh
command -v python3 >/dev/null || fail "python3 is missing; apt-get install python3"
[ "$(ulimit -n)" -gt $((IDLE + 100)) ] || fail "ulimit -n is $(ulimit -n); $((IDLE + 100)) are needed"
begin idle

hold() { # COUNT: opens them, and returns once each has answered; who holds them is `load`
    : >"$data/held"
    python3 - "$PORT" "$1" "$data/held" <<'PYTHON' &
import signal, socket, sys
port, count, told = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
held = []
for number in range(count):
    held.append(socket.create_connection(("127.0.0.1", port)))
    held[-1].sendall(b"PING\r\n")
    assert held[-1].recv(64) == b"+PONG\r\n", f"connection {number} was refused"
with open(told, "w") as file:
    print("all", file=file)
signal.pause()
PYTHON
    load=$!
    until grep -q all "$data/held"; do
        kill -0 "$load" 2>/dev/null || fail "not all of $1 connections were accepted"
        sleep 0.1
    done
}
rss() { sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$1/status"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
at_rest() { # processor time of a process, in ms for each second
    local before after
    before=$(ticks "$1") && sleep 4 && after=$(ticks "$1")
    echo $(((after - before) * 1000 / $(getconf CLK_TCK) / 4))
}
busy() { # throughput and p99 of 64 connections
    "$LOAD" --addr "$addrs" -c 64 --value-size 256 --keys 20000 --warmup 1 --duration "$DURATION" \
        --json "$data/run.json" >/dev/null
    local name
    for name in throughput_ops_per_s latency_p99_us; do
        sed -n '/"median": {/,/}/p' "$data/run.json" | sed -n "s/^ *\"$name\": \([^,]*\),*$/\1/p"
    done | paste -sd' '
}

start_nodes "$OUTRIGGER" "$data/run" "$PORT"
node=${pids%%,*}
# Before anything else: later, they fit into what a load has left free.
before=$(rss "$node")
hold "$IDLE"
memory=$((($(rss "$node") - before) * 1024 / IDLE))
stop_load
"$LOAD" --addr "$addrs" -c 64 --value-size 256 --keys 20000 --fill --warmup 0 -n 100 >/dev/null
for round in $(seq "$ROUNDS"); do
    row="$round $(busy) $(at_rest "$node")"
    hold "$IDLE"
    row+=" $(busy) $(at_rest "$node")"
    stop_load
    echo "$row" | tee -a "$data/rows" >&2
done

cat <<HEAD
# What $IDLE idle connections cost, $(date -u +%F)

| | |
|---|---|
$(commit_and_machine)
| command | \`IDLE=$IDLE ROUNDS=$ROUNDS DURATION=$DURATION bench/idle.sh\` |

Three nodes; all idle connections are of the first, and each has been answered once. Busy: SETs of 256 bytes by 64 connections to
all three. At rest: processor time of that node while nobody asks anything; all groups send heartbeats.

Memory: **$memory bytes for a connection**, by what the process holds of a node that has just started. The kernel's own, for
the sockets, is not in it.

| round | busy, ops/s, without | with | p99, µs, without | with | at rest, ms/s, without | with |
|--:|--:|--:|--:|--:|--:|--:|
$(awk '{ printf "| %d | %.0f | %.0f | %.0f | %.0f | %d | %d |\n", $1, $2, $5, $3, $6, $4, $7 }' "$data/rows")
HEAD
