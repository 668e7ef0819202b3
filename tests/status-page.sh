#!/usr/bin/env bash
# The status page in a real browser: what headless Chromium shows of a live cluster is what INFO says.
#
#   tests/status-page.sh                about 20 s, with a release binary that is built already
#   tests/status-page.sh --regenerate   also takes docs/images/status-page.png, under load
#   OUTRIGGER=target/debug/outrigger tests/status-page.sh   another binary, which is not built
#   PORT=8000 tests/status-page.sh      other ports: PORT to PORT+19 [default: 7681]
#
# It needs Debian's chromium and redis-tools, and installs them if they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

REGENERATE=
for word in "$@"; do
    case $word in
    --regenerate) REGENERATE=yes ;;
    *) echo "tests/status-page.sh [--regenerate], not $word" >&2 && exit 2 ;;
    esac
done
PORT=${PORT:-7681}
source tests/e2e-lib.sh
ADMIN=$((PORT + 5))

install_chromium() {
    command -v chromium >/dev/null && return
    local sudo=()
    if [[ $(id -u) != 0 ]]; then sudo=(sudo); fi
    "${sudo[@]}" apt-get update -qq || die "cannot update the package lists; install chromium by hand"
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends chromium ||
        die "cannot install chromium; install it by hand"
    command -v chromium >/dev/null || die "chromium is installed, and cannot be found"
}

# browser FLAG…: headless, for at most a minute, with a profile of its own.
browser() {
    timeout 60 chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
        --user-data-dir="$WORK/profile" "$@" 2>>"$WORK/chromium.err"
}

# The page of node $1 after some rounds of asking.
page() {
    browser --virtual-time-budget=5000 --dump-dom "http://127.0.0.1:$((ADMIN + $1 - 1))/" >"$WORK/page.html"
}

# The text of the element with this id.
shown() {
    grep -o "<[a-z]* [^>]*id=\"$1\"[^>]*>[^<]*<" "$WORK/page.html" | sed 's/.*>\([^<]*\)<$/\1/' | head -n 1
}

# A line of INFO of node $1.
info() {
    cli $((PORT + $1 - 1)) info outrigger | tr -d '\r' | sed -n "s/^$2://p"
}

# A time in µs, as the page writes it.
as_time() {
    awk -v us="$1" 'BEGIN {
        if (us == 0) print "–"; else if (us < 1000) print us " µs"; else if (us < 1e6) printf "%.3g ms\n", us / 1e3; else printf "%.3g s\n", us / 1e6
    }'
}

# The rows of the groups, as `group role leader commit`.
groups_shown() {
    tr -d '\n' <"$WORK/page.html" | sed 's/.*<tbody id="groups">//; s/<\/tbody>.*//; s/<\/tr>/\n/g' |
        sed 's/<[^>]*>/ /g; s/,//g' | awk 'NF { print $1, $3, $5, $7 }'
}

groups_of_info() {
    cli $((PORT + $1 - 1)) info outrigger | tr -d '\r' |
        sed -n 's/^group_\([0-9]*\):role=\([^,]*\),leader=\([0-9]*\),term=[0-9]*,commit=\([0-9]*\),.*/\1 \2 \3 \4/p'
}

# What is compared, on both sides, one line each.
by_page() {
    page "$1"
    local id
    for id in node state groups_led groups_total flush_method leader_changes wal_flushes; do
        echo "$id $(shown "$id" | tr -d ,)"
    done
    echo "entries_per_flush $(shown entries_per_flush)"
    for id in p50 p99 max; do echo "flush $id $(shown "flush_$id")"; done
    groups_shown
}

by_info() {
    local spread id
    echo "node $(info "$1" node_id)"
    echo "state ready"
    echo "groups_led $(info "$1" groups_led)"
    echo "groups_total $(info "$1" groups)"
    for id in flush_method leader_changes wal_flushes entries_per_flush; do
        echo "$id $(info "$1" "$id")"
    done
    spread=$(info "$1" flush_us_core_0)
    for id in p50 p99 max; do
        echo "flush $id $(as_time "$(sed "s/.*$id=\([0-9]*\).*/\1/" <<<"$spread")")"
    done
    groups_of_info "$1"
}

# The cluster is idle, and still its log is closed now and then: both sides are asked until they are of one moment.
agree() {
    local info page
    for _ in 1 2 3 4 5 6; do
        info=$(by_info "$1")
        page=$(by_page "$1")
        if [[ $info == "$page" ]]; then break; fi
    done
    is "node $1: the browser shows what INFO says, $(wc -l <<<"$info") values" "$info" echo "$page"
}

install_redis_tools
install_chromium
if [[ -z ${OUTRIGGER:-}${BUILT:-} ]]; then cargo build --quiet --release -p outrigger; fi
start --client-port "$PORT" --peer-port $((PORT + 10)) --admin-port "$ADMIN" --groups 12 --serve-arg=--fault-commands
redis-benchmark -p "$P1" -t set,get -n 4000 -c 16 -d 256 -r 1000 -q >/dev/null
sleep 3 # the log is closed, and what INFO tells of flushes is brought up to date
for node in 1 2 3; do agree "$node"; done
like "nothing is loaded from elsewhere" "0" echo "$(grep -cE '(src|href)="(https?:)?//' "$WORK/page.html" || true)"

if [[ -n $REGENERATE ]]; then
    redis-benchmark -p "$P1" -t set -n 100000000 -c 64 -d 256 -r 100000 -q >/dev/null 2>&1 &
    load=$!
    sleep 3
    browser --virtual-time-budget=90000 --window-size=1240,1190 --screenshot="$WORK/page.png" "http://127.0.0.1:$ADMIN/"
    # It ends by itself at the first error, and then the picture shows none of it.
    kill "$load" 2>/dev/null || die "the load ended before the screenshot was taken; again when the machine is less busy"
    wait "$load" 2>/dev/null || true
    [[ -s $WORK/page.png ]] || die "no screenshot: $(tail -n 3 "$WORK/chromium.err")"
    mkdir -p docs/images && mv "$WORK/page.png" docs/images/status-page.png
    ok "docs/images/status-page.png"
fi

# What the page says when the node has no majority any more.
for node in 2 3; do kill -KILL "$(pid_of "$node")"; done
names_the_groups() {
    page 1
    tr -d '\n' <"$WORK/page.html" | grep -o '12 groups without a leader that this node knows of' | head -n 1
    shown state
}
eventually "without the others, the page names what is missing" \
    $'12 groups without a leader that this node knows of\nnot ready' names_the_groups

if ((failures > 0)); then die "$failures of $checks checks"; fi
echo "all $checks checks passed"
