# Three nodes to measure, for scripts that say `. bench/cluster.sh`.
#
#     begin NAME
#         finds the release binaries OUTRIGGER and LOAD, makes the directory `data` (in DATA, or beside the build), and sees to the
#         end: processes in `load` and `up` are ended, `data` is removed
#     start_nodes OUTRIGGER DIR PORT [WORDS for `outrigger up`]
#         starts them in DIR and returns once they are ready; sets `pids` and `addrs`, and adds to `up`, the processes to end
#     stop_nodes
#         ends all that were started, and waits
#     stop_load
#         ends the process in `load`, if there is one, and waits
#     commit_and_machine
#         prints two rows for the table at the head of a record
#
# shellcheck shell=bash disable=SC2034 # what is set here is for the script
up= load= pids= addrs=
TARGET=${CARGO_TARGET_DIR:-target}
OUTRIGGER=${OUTRIGGER:-$TARGET/release/outrigger} LOAD=${LOAD:-$TARGET/release/bench}

fail() { echo "$(basename "$0" .sh): $*" >&2; exit 1; }

begin() {
    [ -x "$OUTRIGGER" ] && [ -x "$LOAD" ] || fail "build first: cargo build --release && cargo build --release -p bench"
    mkdir -p "$TARGET"
    data=$(mktemp -d "${DATA:-$(realpath "$TARGET")}/$1.XXXXXX")
    trap finish EXIT
    trap 'exit 130' INT TERM
}

stop_load() {
    [ -z "$load" ] || { kill "$load" 2>/dev/null || true; wait "$load" 2>/dev/null || true; }
    load=
}

finish() {
    trap - EXIT
    stop_load
    stop_nodes
    rm -rf "$data"
}

start_nodes() {
    local outrigger=$1 dir=$2 port=$3
    shift 3
    mkdir -p "$dir"
    "$outrigger" up --nodes 3 --dir "$dir/nodes" --client-port "$port" --peer-port "$((port + 10))" "$@" \
        >"$dir/log" 2>&1 &
    up+=" $!"
    for _ in $(seq 300); do
        grep -qx ready "$dir/log" && break
        kill -0 $! 2>/dev/null || { cat "$dir/log" >&2; fail "the nodes ended early"; }
        sleep 0.1
    done
    grep -qx ready "$dir/log" || { cat "$dir/log" >&2; fail "the nodes are not ready after 30 s"; }
    addrs=127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))
    pids=$(grep -o '"pid": *[0-9]*' "$dir/nodes/cluster.json" | grep -o '[0-9]*$' | paste -sd,)
}

stop_nodes() {
    # shellcheck disable=SC2086 # several, or none
    [ -z "$up" ] || { kill -TERM $up 2>/dev/null || true; wait $up 2>/dev/null || true; }
    up=
}

commit_and_machine() {
    echo "| commit | $(git rev-parse --short HEAD 2>/dev/null || echo unknown) |"
    echo "| machine | $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(uname -sr) |"
}
