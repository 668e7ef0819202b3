#!/usr/bin/env bash
# Which lines of the log, of Raft, of the wire and of recovery are run by the tests that need no kernel, and by the
# simulator.
#
#     tests/coverage.sh              a table, a line per file; last, how much of all of them
#     tests/coverage.sh --missed     the numbers of the lines that were not run, by file
#     SEEDS=1000 tests/coverage.sh   more worlds than 200
#
# Runs `cargo test --lib --test core` without the shell, and `tools sim`. Some ten minutes on two cores, of which most is
# building. Needs `cargo install cargo-llvm-cov` and `rustup component add llvm-tools`.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-200}
files='src/((wal|raft|wire)/|(shard|group)/recover(\.rs|/))'
other='/(tests|generated)(/|\.rs)'

source <(cargo llvm-cov show-env --sh)
cargo llvm-cov clean --workspace
cargo test --no-default-features --lib --test core >&2
cargo run --package tools -- sim --seeds "$seeds" >&2

report=(cargo llvm-cov report --ignore-filename-regex "$other")
if [[ ${1:-} == --missed ]]; then
    "${report[@]}" --show-missing-lines | grep -E "^/.*$files.*: [0-9]" || true
else
    "${report[@]}" --json --summary-only | python3 -c '
import json, re, sys
ran = lines = 0
for file in json.load(sys.stdin)["data"][0]["files"]:
    name = file["filename"].rsplit("/src/", 1)[-1]
    if re.match(sys.argv[1].removeprefix("src/"), name):
        of = file["summary"]["lines"]
        ran, lines = ran + of["covered"], lines + of["count"]
        print("%6.2f %%  %5d of %5d  src/%s" % (of["percent"], of["covered"], of["count"], name))
print("%6.2f %%  %5d of %5d  all of them" % (100 * ran / lines, ran, lines))
' "$files"
fi
