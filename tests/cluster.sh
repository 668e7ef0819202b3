#!/usr/bin/env bash
# Clients of Redis Cluster against a cluster of real processes: redis-cli -c, redis-benchmark --cluster,
# redis-py's RedisCluster and the redis crate's cluster client; then a soak of both libraries while leaders
# move under them and a node is killed. Every check prints one line.
#
#   tests/cluster.sh             all of it, 2 to 3 minutes
#   PORT=8000 tests/cluster.sh   other ports: PORT to PORT+19 [default: 7651]
#
# It needs redis-tools (installed if missing) and python3 with venv and pip (redis-py goes into target/).
set -euo pipefail
cd "$(dirname "$0")/.."

PORT=${PORT:-7651}
REDIS_PY=7.4.1
# shellcheck source=tests/e2e-lib.sh
source tests/e2e-lib.sh

PYTHON=target/redis-py/bin/python

install_redis_py() {
    [[ -x $PYTHON ]] || python3 -m venv target/redis-py || die "cannot make a Python environment; install python3-venv"
    if [[ $("$PYTHON" -c 'import redis; print(redis.__version__)' 2>/dev/null) != "$REDIS_PY" ]]; then
        "$PYTHON" -m pip install --quiet --disable-pip-version-check "redis==$REDIS_PY" ||
            die "cannot install redis-py $REDIS_PY"
    fi
}

clients() { # WHAT WORD…
    timeout 600 target/debug/clients "$@" --nodes "127.0.0.1:$P1,127.0.0.1:$P2,127.0.0.1:$P3"
}

python() { # WHAT ROUTING
    timeout 600 "$PYTHON" tests/cluster.py "$1" "$2" "$P1" "$P2" "$P3"
}

# redis-cli -c follows -MOVED: every key is there, whichever node it begins at.
redis_cli() {
    for i in $(seq 30); do
        cli $((PORT + i % 3)) -c set "cli:$i" "$i" >/dev/null
    done
    for i in $(seq 30); do
        cli $((PORT + (i + 1) % 3)) -c get "cli:$i"
    done
}

# Without -c it shows what it is told: all keys but those of the node itself are elsewhere.
moved_of_30() {
    for i in $(seq 30); do
        cli "$P1" get "cli:$i" || true
    done 2>&1 | grep -cE '^MOVED [0-9]+ 127\.0\.0\.1:[0-9]+$' || true
}

led_by() { # NODE: how many groups
    cli $((PORT + $1 - 1)) info outrigger | tr -d '\r' | sed -n 's/^groups_led://p'
}

# Spreads the leaders, so that every node leads some groups.
spread() {
    for group in $(seq 0 15); do
        cli "$P1" member transfer $((group % 3 + 1)) group "$group" >/dev/null || true
    done
    for node in 1 2 3; do
        [[ $(led_by "$node") != 0 ]] || return 1
    done
    echo spread
}

benchmark() {
    local out=$WORK/benchmark status=0
    timeout 120 redis-benchmark --cluster -p "$P1" -t set,get,incr -c 30 -P 8 -d 100 -r 10000 -n 20000 --csv \
        >"$out" 2>&1 || status=$?
    is "redis-benchmark --cluster exits 0" 0 echo "$status"
    is "redis-benchmark --cluster prints three results" '"SET" "GET" "INCR"' \
        echo "$(grep -aE '^"(SET|GET|INCR)' "$out" | cut -d, -f1 | paste -sd ' ')"
    is "redis-benchmark --cluster prints no error" "" grep_absent -iE 'error|closed|refused|MOVED' "$out"
}

# Moves one group after the other to the next node, until told to stop.
move_leaders() { # STOP-FILE
    local turn=0
    # It ends by itself, too: should this script be stopped, nobody tells it.
    while [[ ! -e $1 ]] && ((turn < 6000)); do
        cli "$P1" member transfer $((turn / 16 % 3 + 1)) group $((turn % 16)) >/dev/null 2>&1 || true
        turn=$((turn + 1))
        sleep 0.05
    done
}

# How often node 1 has seen a group get another leader.
leader_changes() {
    cli "$P1" info outrigger | tr -d '\r' | sed -n 's/^leader_changes://p'
}

soak() {
    local status_rust=0 status_python=0 mover rust moved
    moved=$(leader_changes)
    move_leaders "$WORK/stop" &
    mover=$!
    clients soak --writes 2500 >"$WORK/soak.crate" 2>&1 &
    rust=$!
    python soak redirect >"$WORK/soak.py" 2>&1 || status_python=$?
    wait "$rust" || status_rust=$?
    touch "$WORK/stop"
    wait "$mover"
    rm "$WORK/stop"
    tail -n 5 "$WORK/soak.crate" "$WORK/soak.py" | sed 's/^/   /'
    is "while leaders move, the redis crate's soak exits 0" 0 echo "$status_rust"
    is "while leaders move, redis-py's soak exits 0" 0 echo "$status_python"
    like "while leaders move, the redis crate lost nothing" "*writes read back,*lost 0*" cat "$WORK/soak.crate"
    like "while leaders move, redis-py lost nothing" "*writes read back,*lost 0*" cat "$WORK/soak.py"
    moved=$(($(leader_changes) - moved))
    if ((moved >= 16)); then ok "$moved leaders moved meanwhile"; else failed "leaders moved meanwhile" "16 or more" "$moved"; fi
}

soak_with_a_kill() {
    local status_rust=0 status_python=0 rust py
    clients soak --writes 2000 >"$WORK/kill.crate" 2>&1 &
    rust=$!
    python soak redirect >"$WORK/kill.py" 2>&1 &
    py=$!
    # The soaks are under way when somebody else's command has got through.
    eventually "the soaks write" yes keys_of_the_second_soak
    kill -KILL "$(pid_of 2)"
    wait "$rust" || status_rust=$?
    wait "$py" || status_python=$?
    tail -n 5 "$WORK/kill.crate" "$WORK/kill.py" | sed 's/^/   /'
    is "with node 2 killed, the redis crate's soak exits 0" 0 echo "$status_rust"
    is "with node 2 killed, redis-py's soak exits 0" 0 echo "$status_python"
    like "with node 2 killed, the redis crate lost nothing" "*lost 0*" cat "$WORK/kill.crate"
    like "with node 2 killed, redis-py lost nothing" "*lost 0*" cat "$WORK/kill.py"
}

# Whether both soaks have begun, after FLUSHALL.
keys_of_the_second_soak() {
    local crate py
    crate=$(cli "$P3" -c get soak:crate:0:1:0)
    py=$(cli "$P3" -c get soak:py:0:1:0)
    if [[ -n $crate && -n $py ]]; then echo yes; fi
}

every_client() { # ROUTING
    eventually "$1: every node leads some groups" spread spread
    is "$1: redis-cli -c finds every key from every node" "$(seq 30)" redis_cli
    benchmark
    is "$1: redis-py" "redis-py's RedisCluster is served" python check "$1"
    is "$1: the redis crate" "the redis crate's cluster client is served" clients check
}

install_redis_tools
install_redis_py
[[ -n ${BUILT:-} ]] || cargo build --quiet --release -p outrigger -p tools -p power # .ci/run has built them
cargo build --quiet -p clients # quick to build matters more than quick to run
start --client-port "$PORT" --peer-port $((PORT + 10)) --admin-port $((PORT + 5))
every_client auto
is "auto: redis-cli without -c is forwarded" 0 moved_of_30
stop
start --serve-arg=--routing=redirect
every_client redirect
is "redirect: redis-cli sets its keys again" "$(seq 30)" redis_cli
moved=$(moved_of_30)
if ((moved > 0 && moved < 30)); then ok "redirect: of 30 keys, $moved are elsewhere"; else failed "redirect: keys elsewhere" "1 to 29" "$moved"; fi
like "ASKING is refused by name" "ERR ASKING is not supported*" cli "$P1" asking
like "CLUSTER INFO" "cluster_state:ok*" cli "$P1" cluster info
soak
is "FLUSHALL" OK cli "$P1" flushall
soak_with_a_kill

if ((failures > 0)); then die "$failures of $checks checks"; fi
echo "all $checks checks passed"
