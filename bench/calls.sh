#!/usr/bin/env bash
# Calls into the kernel, context switches and page faults of three nodes for one SET, and the same load sent to the nodes that
# lead its keys (--by-slot), as two Markdown tables with every line that was run:
#
#     cargo build --release && cargo build --release -p bench
#     bench/calls.sh
#
# Needs perf and root (it reads /sys/kernel/tracing). Settings, by environment variable: OUTRIGGER, LOAD, CONNECTIONS ("1 16 64 256"),
# DURATION (4, whole seconds), VALUE_SIZE (256), PORT (27500).
set -euo pipefail
cd "$(dirname "$0")/.."

CONNECTIONS=${CONNECTIONS:-1 16 64 256} DURATION=${DURATION:-4} VALUE_SIZE=${VALUE_SIZE:-256} PORT=${PORT:-27500}
EVENTS=raw_syscalls:sys_enter,syscalls:sys_enter_io_uring_enter,syscalls:sys_enter_recvfrom
EVENTS+=,syscalls:sys_enter_sendmsg,syscalls:sys_enter_sendto,context-switches,page-faults

. bench/cluster.sh
for tool in perf python3; do command -v "$tool" >/dev/null || fail "$tool is missing"; done
begin calls

start_nodes "$OUTRIGGER" "$data/run" "$PORT"
"$LOAD" --addr "$addrs" -c 64 --value-size "$VALUE_SIZE" --fill --warmup 0 --duration 0.1 >/dev/null
commit_and_machine
echo
for count in $CONNECTIONS; do
    for by_slot in "" --by-slot; do
        ask=("$LOAD" --addr "$addrs" --connections "$count" --value-size "$VALUE_SIZE" --warmup 2 --duration "$DURATION"
            --server-pids "$pids" --json "$data/$count$by_slot.json")
        [ -z "$by_slot" ] || ask+=("$by_slot")
        count_calls=(perf stat --field-separator , --event "$EVENTS" --pid "$pids" --output "$data/$count$by_slot.stat"
            -- sleep "$DURATION")
        echo "    ${ask[*]}"
        "${ask[@]}" >"$data/text" &
        load=$!
        sleep 2
        if [ -z "$by_slot" ]; then
            echo "    ${count_calls[*]}"
            "${count_calls[@]}"
        fi
        wait "$load"
        load=
    done
done
echo
# Operations are those that were answered in the window, which is as long as perf counted; they begin within milliseconds.
python3 - "$data" $CONNECTIONS <<'PYTHON'
import json, sys
data, counts = sys.argv[1], sys.argv[2:]
def run(name):
    return json.load(open(f"{data}/{name}.json"))["runs"][0]
print("| connections | all | `io_uring_enter` | `recvfrom` | `sendmsg` | `sendto` | context switches | page faults |")
print("|--:|--:|--:|--:|--:|--:|--:|--:|")
for count in counts:
    lines = [line.split(",") for line in open(f"{data}/{count}.stat") if line[:1].isdigit()]
    ops = run(count)["ops_count"]
    print(f"| {count} | " + " | ".join(f"{float(line[0]) / ops:.2f}" for line in lines) + " |")
print()
print("| connections | ops/s | p50, us | p99, us | CPU, us | by slot: ops/s | p50, us | p99, us | CPU, us |")
print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
for count in counts:
    cells = []
    for it in (run(count), run(count + "--by-slot")):
        cells += [f"{it['throughput_ops_per_s']:,.0f}", f"{it['latency_p50_us']:,.0f}", f"{it['latency_p99_us']:,.0f}",
                  f"{it['server_cpu_us_per_op']:.1f}"]
    print(f"| {count} | " + " | ".join(cells) + " |")
PYTHON
