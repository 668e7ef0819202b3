#!/usr/bin/env bash
# docs/tour.md, walked as it stands: every block marked `sh`, in one shell, from top to bottom.
#
#     tests/tour.sh          what it says is checked at the end; half a minute, once everything is built
#
# Settings, by environment variable: TOUR_BIN, a directory with built `outrigger`, `bench`, and the example `counter`, if
# it is there: they are used, and nothing is built. Needs redis-cli with TLS (Debian: redis-tools) and openssl. The ports are those of the page.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "tour: $*" >&2; exit 1; }
for tool in redis-cli openssl; do
    command -v "$tool" >/dev/null || fail "$tool is missing; apt-get install redis-tools openssl"
done
mkdir -p target/tmp
TOUR=$(mktemp -d "$PWD/target/tmp/tour.XXXXXX")
export TOUR
finish() {
    code=$?
    trap - EXIT
    jobs -p | xargs -r kill -TERM 2>/dev/null || true
    wait || true
    if [ "$code" -ne 0 ]; then
        tail -n 5 "$TOUR"/*.log >&2 || true
        [ ! -f "$TOUR/said" ] || tail -n 20 "$TOUR/said" >&2
    fi
    rm -rf "$TOUR"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# With binaries that are there, cargo's own part is what they do.
if [ -n "${TOUR_BIN:-}" ]; then
    BIN=$(realpath "$TOUR_BIN")
    cargo() {
        case "$1 ${2:-}" in
            "build --release") ;;
            "load --") shift 2; "$BIN/bench" "$@" ;;
            "run --quiet") if [ -x "$BIN/counter" ]; then "$BIN/counter"; else command cargo "$@"; fi ;;
            *) command cargo "$@" ;;
        esac
    }
fi

awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on' docs/tour.md |
    sed "s|^export PATH=\$PWD/target/release:|export PATH=${BIN:-\$PWD/target/release}:|" >"$TOUR/script"
[ "$(grep -c . "$TOUR/script")" -gt 40 ] || fail "docs/tour.md has fewer commands than it had"
# In this shell, so that its processes are ours to end; what it prints is looked at afterwards.
. "$TOUR/script" >"$TOUR/said" 2>&1
said() { grep -q -- "$1" "$TOUR/said" || fail "the tour does not say '$1'"; }
said '^hello$'
said '3 of 3 nodes, 16 of 16 groups led'
said 'ops/s'
grep -q '<svg' "$TOUR/load.html" || fail "the report has no picture"
said '^16 groups, '
said '^while one was gone$'
said '^4 .*127.0.0.1:7614 '
said ' keys restored$'
said '^do not lose$'
said 'SET precious "do not lose"'
said 'entries found'
# Who has no password, or speaks no TLS, got nowhere: nothing but the page's own commands did anything.
echo "the tour was walked: $(grep -c . "$TOUR/script") lines"
