# Three nodes to measure, for scripts that say `. bench/cluster.sh`.
#
#     start_nodes OUTRIGGER DIR PORT [WORDS for `outrigger up`]
#         starts them in DIR and returns once they are ready; sets `up` (the process to end), `pids` and `addrs`
#     stop_nodes
#         ends them, if there are any, and waits
#     commit_and_machine
#         prints two rows for the table at the head of a record
#
# The script has a `fail` of its own.
# shellcheck shell=bash disable=SC2034 # what is set here is for the script
up= pids= addrs=

start_nodes() {
    local outrigger=$1 dir=$2 port=$3
    shift 3
    mkdir -p "$dir"
    "$outrigger" up --nodes 3 --dir "$dir/nodes" --client-port "$port" --peer-port "$((port + 10))" "$@" \
        >"$dir/log" 2>&1 &
    up=$!
    for _ in $(seq 300); do
        grep -qx ready "$dir/log" && break
        kill -0 "$up" 2>/dev/null || { cat "$dir/log" >&2; fail "the nodes ended early"; }
        sleep 0.1
    done
    grep -qx ready "$dir/log" || { cat "$dir/log" >&2; fail "the nodes are not ready after 30 s"; }
    addrs=127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))
    pids=$(grep -o '"pid": *[0-9]*' "$dir/nodes/cluster.json" | grep -o '[0-9]*$' | paste -sd,)
}

stop_nodes() {
    [ -z "$up" ] || { kill -TERM "$up" 2>/dev/null || true; wait "$up" 2>/dev/null || true; }
    up=
}

commit_and_machine() {
    echo "| commit | $(git rev-parse --short HEAD 2>/dev/null || echo unknown) |"
    echo "| machine | $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(uname -sr) |"
}
