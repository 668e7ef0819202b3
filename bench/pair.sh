#!/usr/bin/env bash
# Two builds of the node beside each other, a cluster of three each, in alternating rounds:
#
#     bench/pair.sh before=target/before after=target/release/outrigger --rounds 24 --duration 3 -c 256 --value-size 256
#
# The first two words name the builds; the rest is for `cargo load`. Both clusters run all the time, so each has the same machine
# and the same neighbours. Run it once more with the two exchanged: who was started first may be better off. Settings,
# by environment variable: LOAD, DATA, PORT (27800).
set -euo pipefail
cd "$(dirname "$0")/.."

PORT=${PORT:-27800}
usage="usage: bench/pair.sh NAME=BINARY NAME=BINARY [words for cargo load]"
[[ ${1:-} == *=* && ${2:-} == *=* ]] || { echo "$usage" >&2; exit 2; }
OUTRIGGER=${1#*=}
. bench/cluster.sh
[ -x "${2#*=}" ] || fail "no ${2#*=}"
begin pair

start_nodes "${1#*=}" "$data/first" "$PORT"
first=$addrs
start_nodes "${2#*=}" "$data/second" "$((PORT + 30))"
"$LOAD" --target "${1%%=*}=$first" --target "${2%%=*}=$addrs" "${@:3}"
