#!/usr/bin/env bash
# End to end: a whole cluster of real processes, driven by the real redis-cli and redis-benchmark,
# and killed. Every check prints one line; a failed one prints what was expected and what came.
#
#   tests/e2e.sh              all of it, 2 to 3 minutes
#   ROUNDS=50 tests/e2e.sh    more rounds of kill -9
#   PORT=8000 tests/e2e.sh    other ports: PORT to PORT+29 [default: 7601]
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-6}
PORT=${PORT:-7601}
source tests/e2e-lib.sh

readme_session() {
    is "set through node 1" OK cli "$P1" set greeting hello
    is "get through node 2" hello cli "$P2" get greeting
    is "get through node 3" hello cli "$P3" get greeting
    is "get through node 1" hello cli "$P1" get greeting
    is "incr through node 3" 1 cli "$P3" incr visits
    is "incr through node 1" 2 cli "$P1" incr visits
    for i in 1 2 3 4 5 6 7 8 9; do # nine keys, several groups and leaders
        cli $((PORT + i % 3)) set "key:$i" "value:$i" >/dev/null
    done
    local values=$'value:1\nvalue:2\nvalue:3\nvalue:4\nvalue:5\nvalue:6\nvalue:7\nvalue:8\nvalue:9'
    for port in "$P1" "$P2" "$P3"; do
        is "nine keys by mget through port $port" "$values" cli "$port" mget key:{1..9}
    done
}

connection_commands() {
    is "PING" PONG cli "$P1" ping
    is "PING message" hi cli "$P2" ping hi
    is "ECHO" "a b" cli "$P3" echo "a b"
    is "SELECT 0" OK cli "$P1" select 0
    is "SELECT 1" "ERR DB index is out of range" cli "$P1" select 1
    is "QUIT" OK cli "$P1" quit
    is "RESET" RESET cli "$P1" reset
    like "CLIENT ID" "[0-9]*" cli "$P1" client id
    like "HELLO 2" $'server\noutrigger\nversion\n*\nproto\n2\nid\n*\nrole\nmaster*' cli "$P1" hello 2
    is "HELLO 4" "NOPROTO unsupported protocol version" cli "$P1" hello 4
    like "COMMAND" "*get*" cli "$P1" command
    is "COMMAND COUNT" 85 cli "$P1" command count
    like "COMMAND DOCS" $'get\nsummary\n*' cli "$P1" command docs get
    like "COMMAND INFO" $'get\n2\nreadonly*' cli "$P1" command info get
    is "CONFIG GET save, as redis-benchmark asks" "save" echo "$(cli "$P1" config get save | head -n 1)"
    is "CONFIG GET appendonly" $'appendonly\nyes' cli "$P1" config get appendonly
    like "CONFIG SET" "ERR CONFIG set is not supported*" cli "$P1" config set save ""
    like "INFO outrigger" "*node_id:2*groups_led:*wal_flushes:*group_0:role=*" cli "$P2" info outrigger
    like "INFO" "*redis_version:*" cli "$P1" info
    like "DEBUG DIGEST" "????????????????" cli "$P1" debug digest
}

string_commands() {
    is "SET" OK cli "$P1" set k one
    is "GET" one cli "$P2" get k
    is "GET of nothing" "" cli "$P3" get nothing
    is "SET NX, present" "" cli "$P1" set k two nx
    is "SET NX, absent" OK cli "$P1" set k:nx two nx
    is "SET XX, absent" "" cli "$P2" set k:xx two xx
    is "SET XX, present" OK cli "$P2" set k two xx
    is "SET GET" two cli "$P3" set k three get
    is "SET IFEQ, equal" OK cli "$P1" set k four ifeq three
    is "SET IFEQ, different" "" cli "$P1" set k five ifeq three
    is "after both IFEQ" four cli "$P2" get k
    is "SET EX" OK cli "$P1" set ttl v ex 100
    is "TTL, through another node" 100 cli "$P2" ttl ttl
    is "PERSIST" 1 cli "$P3" persist ttl
    is "PEXPIRE" 1 cli "$P1" pexpire ttl 1
    sleep 0.2
    is "what has expired is gone" 0 cli "$P2" exists ttl
    like "SET with two times is refused" "ERR syntax error*" cli "$P1" set k v ex 10 px 10
    is "a refused SET changed nothing" four cli "$P3" get k
    is "SETNX, present" 0 cli "$P1" setnx k five
    is "SETNX, absent" 1 cli "$P1" setnx k:setnx five
    is "GETSET" four cli "$P2" getset k six
    is "GETDEL" six cli "$P3" getdel k
    is "GETDEL of nothing" "" cli "$P3" getdel k
    is "MSET over several groups" OK cli "$P1" mset a 1 b 2 c 3 d 4
    is "MGET over several groups and nothing" $'1\n2\n3\n4' cli "$P2" mget a b c d nothing
    is "EXISTS counts repeats" 3 cli "$P3" exists a b a nothing
    is "DEL" 3 cli "$P1" del a b c nothing
    is "EXISTS after DEL" 1 cli "$P2" exists a b c d
    is "APPEND, absent" 3 cli "$P1" append s abc
    is "APPEND, present" 6 cli "$P2" append s def
    is "STRLEN" 6 cli "$P3" strlen s
    is "TYPE" string cli "$P1" type s
    is "TYPE of nothing" none cli "$P1" type nothing
    is "INCR" 1 cli "$P1" incr n
    is "INCRBY" 43 cli "$P2" incrby n 42
    is "DECRBY" 40 cli "$P3" decrby n 3
    is "DECR" 39 cli "$P1" decr n
}

# redis-cli sends what it reads from stdin with -x; bytes that are no text must survive.
binary_values() {
    printf '\001\377\r\n\200 end' | cli "$P1" -x set binary >/dev/null
    is "a value of bytes that are no text" '"\x01\xff\r\n\x80 end"' cli "$P2" --no-raw get binary
    head -c 1000000 /dev/zero | tr '\0' 'z' | cli "$P2" -x set large >/dev/null
    is "a value of a megabyte" 1000000 cli "$P3" strlen large
}

errors() {
    is "an unknown command" "ERR unknown command 'nope', with args beginning with: 'a' 'b' " cli "$P1" nope a b
    is "too few arguments" "ERR wrong number of arguments for 'get' command" cli "$P1" get
    is "too many arguments" "ERR wrong number of arguments for 'get' command" cli "$P1" get a b
    is "MSET with half a pair" "ERR wrong number of arguments for 'mset' command" cli "$P1" mset a 1 b
    is "an unknown option" "ERR syntax error" cli "$P1" set k v what
    is "INCR of a text" "ERR value is not an integer or out of range" cli "$P2" incr greeting
    is "INCRBY a text" "ERR value is not an integer or out of range" cli "$P2" incrby n x
    cli "$P1" set big 9223372036854775807 >/dev/null
    is "INCR past the end" "ERR increment or decrement would overflow" cli "$P3" incr big
    is "SCAN with a wrong cursor" "ERR invalid cursor" cli "$P1" scan x
    exec 3<>"/dev/tcp/127.0.0.1/$P1"
    # In one write, which printf would not do: what arrives at a connection that was closed resets it.
    cat <<<$'*1\r\n!4\r\nPING\r' >&3
    like "garbage is answered and closes its own connection" "-ERR Protocol error*" timeout 10 cat <&3
    exec 3>&-
    is "other connections go on" PONG cli "$P1" ping
}

resp3() {
    is "RESP3: HELLO says so" 3 hello_field proto
    is "RESP3: nil" "(nil)" cli "$P1" -3 --no-raw get nothing
    is "RESP3: an integer" "(integer) 39" cli "$P1" -3 --no-raw decrby n 0
    is "RESP3: an array" $'1) "hello"\n2) (nil)' cli "$P2" -3 --no-raw mget greeting nothing
    like "RESP3: a map" '1# "get" => *"summary" => *' cli "$P3" -3 --no-raw command docs get
    is "RESP3: JSON" '["hello",null]' cli "$P3" --json mget greeting nothing
    like "RESP3: INFO" "*node_id:3*" cli "$P3" -3 info outrigger
    is "RESP3: an error" "(error) ERR syntax error" cli "$P1" -3 --no-raw set k v what
}

# The field $1 of HELLO 3, from `"proto" => (integer) 3`.
hello_field() {
    cli "$P1" -3 --no-raw hello 3 | sed -n "s/.*\"$1\" => (integer) //p"
}

# A cluster of its own, with its doors closed: redis-cli gets in with the authority and the password only.
closed_doors() {
    local doors=$WORK/doors port=$((PORT + 20)) pid
    mkdir -p "$doors"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=e2e" \
        -keyout "$doors/ca-key.pem" -out "$doors/ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=node" \
        -keyout "$doors/key.pem" -out "$doors/node.csr" 2>/dev/null
    echo "subjectAltName=IP:127.0.0.1" >"$doors/node.ext"
    openssl x509 -req -in "$doors/node.csr" -CA "$doors/ca.pem" -CAkey "$doors/ca-key.pem" -CAcreateserial \
        -days 2 -extfile "$doors/node.ext" -out "$doors/cert.pem" 2>/dev/null
    echo sesame >"$doors/password"
    chmod 600 "$doors"/*
    local args=(--serve-arg="--requirepass-file=$doors/password")
    for prefix in "" peer-; do
        args+=(--serve-arg="--${prefix}tls-cert=$doors/cert.pem" --serve-arg="--${prefix}tls-key=$doors/key.pem")
    done
    args+=(--serve-arg="--peer-tls-ca=$doors/ca.pem")
    local keys=(--tls-ca "$doors/ca.pem" --password-file "$doors/password")
    ${OUTRIGGER:-target/release/outrigger} up --dir "$doors/data" --nodes 3 --groups 4 --client-port "$port" \
        --peer-port $((port + 5)) "${args[@]}" "${keys[@]}" >"$doors/up.out" 2>"$doors/up.err" &
    pid=$!
    for _ in $(seq 300); do
        if grep -qx ready "$doors/up.out" || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    is "TLS: up is ready behind closed doors" ready grep -x ready "$doors/up.out"
    tls() { # PORT WORD…
        timeout 20 redis-cli -p "$1" --tls --cacert "$doors/ca.pem" --no-auth-warning "${@:2}"
    }
    is "TLS: set with the password" OK tls "$port" -a sesame set greeting hello
    is "TLS: get through another node" hello tls $((port + 2)) -a sesame get greeting
    is "TLS: nothing without the password" "NOAUTH Authentication required." tls "$port" get greeting
    like "TLS: nothing with a wrong one" "*WRONGPASS*" tls "$port" -a wrong get greeting
    is "TLS: nothing in the clear" "" grep_absent hello <(timeout 20 redis-cli -p "$port" get greeting 2>&1 || true)
    like "TLS: ctl" "*127.0.0.1:$((port + 5))*" ${OUTRIGGER:-target/release/outrigger} ctl --node "127.0.0.1:$port" \
        "${keys[@]}" member list
    kill -TERM "$pid"
    wait "$pid" || true
}

scans() {
    local pairs=()
    for i in $(seq 300); do pairs+=("scan:$i" "$i"); done
    cli "$P1" mset "${pairs[@]}" >/dev/null
    for port in "$P1" "$P2" "$P3"; do
        is "--scan finds each of 300 keys once through port $port" "$(seq -f 'scan:%.0f' 300 | sort)" \
            sorted_scan "$port"
    done
    is "--scan with a pattern" $'scan:7\nscan:70\nscan:71\nscan:72\nscan:73\nscan:74\nscan:75\nscan:76\nscan:77\nscan:78\nscan:79' \
        sorted_scan "$P2" 'scan:7' 'scan:7?'
    is "SCAN with MATCH, COUNT and TYPE, until the cursor is 0 again" 300 scan_by_cursor
    is "DBSIZE agrees with --scan" "$(cli "$P1" --scan | wc -l)" cli "$P3" dbsize
}

sorted_scan() { # PORT PATTERN…
    local port=$1
    shift
    for pattern in "${@:-scan:*}"; do cli "$port" --scan --pattern "$pattern"; done | sort
}

# How many different keys SCAN returns, each step through another node.
scan_by_cursor() {
    local cursor=0 step=0 page
    while :; do
        mapfile -t page < <(cli $((PORT + step % 3)) scan "$cursor" match 'scan:*' count 17 type string)
        cursor=${page[0]:-error}
        printf '%s\n' "${page[@]:1}"
        step=$((step + 1))
        [[ $cursor =~ ^[1-9][0-9]*$ ]] || break
    done | grep '^scan:' | sort | uniq -u | wc -l
}

benchmark() { # PORT
    local out=$WORK/benchmark.$1 status=0
    timeout 120 redis-benchmark -p "$1" -t set,get,incr,mset -c 64 -P 16 -d 256 -r 10000 -n 30000 --csv \
        >"$out" 2>&1 || status=$?
    is "redis-benchmark through port $1 exits 0" 0 echo "$status"
    is "redis-benchmark prints four results" '"SET" "GET" "INCR" "MSET (10 keys)"' \
        echo "$(grep -aE '^"(SET|GET|INCR|MSET)' "$out" | cut -d, -f1 | paste -sd ' ')"
    is "redis-benchmark prints no error and no warning" "" grep_absent -iE 'error|warn|closed|refused' "$out"
    grep -aE '^"(SET|GET|INCR|MSET)' "$out" | awk -F'","' '{ gsub(/"/, ""); print }' |
        awk -F, '{ printf "   %-15s %10s/s   p50 %s ms   p99 %s ms\n", $1, $2, $5, $7 }'
}

one_node_dies() {
    local victim key_count
    victim=$(pid_of 2)
    cli "$P2" set before-kill yes >/dev/null
    key_count=$(cli "$P3" dbsize)
    local keys=(greeting before-kill key:{1..9})
    local values=$'hello\nyes\nvalue:1\nvalue:2\nvalue:3\nvalue:4\nvalue:5\nvalue:6\nvalue:7\nvalue:8\nvalue:9'
    kill -KILL "$victim"
    # Meanwhile a read over several groups is right or refused, never half an answer.
    whole_or_refused "while groups have no leader, DBSIZE is right or refused" "$key_count" cli "$P1" dbsize
    whole_or_refused "while groups have no leader, MGET is right or refused" "$values" cli "$P3" mget "${keys[@]}"
    eventually "with node 2 killed, node 1 takes a write" OK cli "$P1" set after-kill yes
    eventually "with node 2 killed, node 1 serves every group" $((key_count + 1)) cli "$P1" dbsize
    eventually "with node 2 killed, node 3 serves every group" $((key_count + 1)) cli "$P3" dbsize
    is "with node 2 killed, node 1 has every key" "$values" cli "$P1" mget "${keys[@]}"
    is "with node 2 killed, node 3 has every key" "$values" cli "$P3" mget "${keys[@]}"
    like "up tells that the node is gone" "*node 2 ended (signal: 9 (SIGKILL))*" cat "$WORK/up.err"
}

# Asks until the answer is right, for 20 s; before that only -NOLEADER will do.
whole_or_refused() {
    local name=$1 expected=$2 got=
    shift 2
    for _ in $(seq 400); do
        got=$("$@" 2>&1) || got+=" (exit status $?)"
        if [[ $got != NOLEADER* ]]; then break; fi
        sleep 0.05
    done
    if [[ $got == "$expected" ]]; then ok "$name"; else failed "$name" "$expected, or NOLEADER" "$got"; fi
}

kill_rounds() {
    local status=0 out=$WORK/rounds.out
    target/release/tools rounds --rounds "$ROUNDS" --port $((PORT + 20)) --dir "$WORK/rounds" >"$out" 2>&1 || status=$?
    sed 's/^/   /' "$out"
    is "cargo tool rounds exits 0" 0 echo "$status"
    like "cargo tool rounds lost nothing" \
        "*$ROUNDS rounds: $ROUNDS node kills, $ROUNDS whole-cluster kills, *lost 0, refused and seen 0, duplicated 0*" \
        cat "$out"
}

after_restart() {
    local port
    for port in "$P1" "$P2" "$P3"; do
        is "after the restart, node at port $port has the first key" hello cli "$port" get greeting
        is "after the restart, node at port $port has the last key" yes cli "$port" get after-kill
        is "after the restart, node at port $port has the counter" 2 cli "$port" get visits
    done
    is "after the restart, the same number of keys" "$1" cli "$P3" dbsize
    eventually "after the restart, all replicas hold the same" 1 digests
    is "FLUSHALL" OK cli "$P1" flushall
    is "DBSIZE after FLUSHALL" 0 cli "$P2" dbsize
}

# How many different digests the nodes have.
digests() {
    local port
    for port in "$P1" "$P2" "$P3"; do cli "$port" debug digest; done | sort -u | wc -l
}

install_redis_tools
[[ -n ${BUILT:-} ]] || cargo build --quiet --release -p outrigger -p tools -p power # .ci/run has built them
start --client-port "$PORT" --peer-port $((PORT + 10)) --admin-port $((PORT + 5))
ok "up says ready"
like "up prints a table" "*node *client address*groups led*127.0.0.1:$P1*127.0.0.1:$P2*127.0.0.1:$P3*" tr '\n' ' ' <"$WORK/up.out"
readme_session
connection_commands
string_commands
binary_values
errors
resp3
closed_doors
scans
benchmark "$P1"
benchmark "$P3"
one_node_dies
key_count=$(cli "$P1" dbsize)
stop
start
ok "up says ready again, on the same directory and ports"
after_restart "$key_count"
stop
kill_rounds

if ((failures > 0)); then die "$failures of $checks checks"; fi
echo "all $checks checks passed"
