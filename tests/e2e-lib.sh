# What the end-to-end scripts share: a cluster in a directory of its own, and checks that print a line each.
# To be sourced, from the root of the repository, with PORT set.
# shellcheck shell=bash

P1=$PORT P2=$((PORT + 1)) P3=$((PORT + 2))
mkdir -p target
WORK=$(mktemp -d "$PWD/target/e2e.XXXXXX")
DATA=$WORK/data
UP_PID=
checks=0 failures=0

# Kills what this script started, by pid, and nothing else.
clean_up() {
    local status=$?
    trap - EXIT
    if [[ -n $UP_PID ]] && kill -0 "$UP_PID" 2>/dev/null; then
        kill -TERM "$UP_PID" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$UP_PID" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$UP_PID" 2>/dev/null || true # its nodes end with it
        wait "$UP_PID" 2>/dev/null || true
    fi
    if ((status == 0)); then
        rm -rf "$WORK"
    else
        echo "data and logs are kept in $WORK" >&2
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    echo "FAILED $*" >&2
    exit 1
}

ok() {
    checks=$((checks + 1))
    echo "ok $*"
}

failed() { # NAME EXPECTED GOT
    checks=$((checks + 1))
    failures=$((failures + 1))
    printf 'FAILED %s\n  expected: %s\n  got:      %s\n' "$1" "$2" "$3"
}

# is NAME EXPECTED COMMAND…: the command prints exactly this.
is() {
    local name=$1 expected=$2 got
    shift 2
    got=$("$@" 2>&1) || got+=" (exit status $?)"
    if [[ $got == "$expected" ]]; then ok "$name"; else failed "$name" "$expected" "$got"; fi
}

# like NAME PATTERN COMMAND…: the command succeeds, and what it prints matches this glob.
like() {
    local name=$1 pattern=$2 got status=0
    shift 2
    got=$("$@" 2>&1) || status=$?
    if ((status > 0)); then got+=" (exit status $status)"; fi
    # shellcheck disable=SC2053 # a pattern is meant
    if ((status == 0)) && [[ $got == $pattern ]]; then ok "$name"; else failed "$name" "$pattern" "$got"; fi
}

cli() { # PORT WORD…
    local port=$1
    shift
    timeout 20 redis-cli -p "$port" "$@"
}

install_redis_tools() {
    command -v redis-cli >/dev/null && command -v redis-benchmark >/dev/null && return
    local sudo=()
    if [[ $(id -u) != 0 ]]; then sudo=(sudo); fi
    "${sudo[@]}" apt-get update -qq || die "cannot update the package lists; install redis-tools by hand"
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends redis-tools ||
        die "cannot install redis-tools; install it by hand"
    command -v redis-cli >/dev/null || die "redis-tools is installed, and there is no redis-cli"
    command -v redis-benchmark >/dev/null || die "redis-tools is installed, and there is no redis-benchmark"
}

# Starts the cluster and waits for its `ready`.
start() {
    : >"$WORK/up.out"
    "${OUTRIGGER:-target/release/outrigger}" up --dir "$DATA" "$@" >"$WORK/up.out" 2>>"$WORK/up.err" &
    UP_PID=$!
    for _ in $(seq 600); do
        if grep -qx ready "$WORK/up.out"; then return; fi
        kill -0 "$UP_PID" 2>/dev/null || die "up ended before it was ready: $(tail -n 5 "$WORK/up.err")"
        sleep 0.1
    done
    die "up is not ready after 60 s: $(tail -n 5 "$WORK/up.err")"
}

# The pid of node $1, from the table that `up` prints: node, client address, pid.
pid_of() {
    awk -v node="$1" '$1 == node && $3 ~ /^[0-9]+$/ { print $3 }' "$WORK/up.out"
}

# SIGTERM to `up`: it ends cleanly, and so did all its nodes.
stop() {
    local pids=() status=0 node pid left=()
    for node in 1 2 3; do
        pid=$(pid_of "$node")
        [[ -n $pid ]] || die "the table of up names no pid for node $node"
        pids+=("$pid")
    done
    kill -TERM "$UP_PID"
    wait "$UP_PID" || status=$?
    UP_PID=
    is "up exits 0 after SIGTERM" 0 echo "$status"
    for pid in "${pids[@]}"; do
        if kill -0 "$pid" 2>/dev/null; then left+=("$pid"); fi
    done
    is "no process is left behind" "" echo "${left[@]}"
}

grep_absent() {
    grep "$@" || true
}

# As `is`, for 20 s: groups elect new leaders meanwhile.
eventually() {
    local name=$1 expected=$2 got=
    shift 2
    for _ in $(seq 100); do
        got=$("$@" 2>&1) || got+=" (exit status $?)"
        if [[ $got == "$expected" ]]; then break; fi
        sleep 0.2
    done
    if [[ $got == "$expected" ]]; then ok "$name"; else failed "$name" "$expected" "$got"; fi
}
