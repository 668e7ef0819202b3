#!/usr/bin/env bash
# Takes every picture under docs/images anew, from a live cluster under load: the status page, `outrigger top`, a load report.
#
#     cargo build --release && cargo build --release -p bench && docs/images/regenerate.sh
#
# Takes a minute and a quiet machine. Settings, by environment variable: OUTRIGGER, LOAD, PORT (27700). Needs chromium and python3.
set -euo pipefail
cd "$(dirname "$0")/../.."

PORT=${PORT:-27700}
. bench/cluster.sh
begin images
# A picture of a debug build shows times that nobody will see.
for program in "$OUTRIGGER" "$LOAD"; do
    case $(realpath "$program") in
    */debug/*) fail "$program is a debug build; cargo build --release && cargo build --release -p bench" ;;
    esac
done
for tool in chromium python3; do command -v "$tool" >/dev/null || fail "$tool is missing; apt-get install $tool"; done

start_nodes "$OUTRIGGER" "$data/run" "$PORT"
"$LOAD" --addr "$addrs" --workload ycsb-a --keys 20000 -c 32 --duration 12 --runs 1 --html "$data/load.html" >/dev/null &
load=$!
sleep 8
"$OUTRIGGER" top --node "127.0.0.1:$PORT" --once --width 124 >"$data/top.txt"
wait "$load" && load=
stop_nodes

# Text on a dark ground, as a terminal has it.
python3 - "$data/top.txt" docs/images/top.svg <<'PYTHON'
import sys
from xml.sax.saxutils import escape
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
wide, high = max(map(len, lines)), len(lines)
with open(sys.argv[2], "w", encoding="utf-8") as out:
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide * 8.43 + 20:.0f} {high * 17 + 20}" '
          'font-family="ui-monospace,DejaVu Sans Mono,monospace" font-size="14">', file=out)
    print('<rect width="100%" height="100%" rx="6" fill="#11151c"/>', file=out)
    for row, line in enumerate(lines):
        print(f'<text x="10" y="{row * 17 + 24}" fill="#cfd8e3" textLength="{len(line) * 8.43:.1f}" '
              f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(line)}</text>', file=out)
    print('</svg>', file=out)
PYTHON
timeout 60 chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,1500 \
    --user-data-dir="$data/profile" --screenshot=docs/images/load-report.png "file://$data/load.html" 2>/dev/null
OUTRIGGER=$OUTRIGGER tests/status-page.sh --regenerate
ls -l docs/images
