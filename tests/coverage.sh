#!/usr/bin/env bash
# Which lines of the log, of Raft, of the wire and of recovery are run by the tests that need no kernel, and by the
# simulator.
#
#     tests/coverage.sh              a table, a line per file; last, how much of all of them
#     tests/coverage.sh --missed     the numbers of the lines that were not run, by file
#     tests/coverage.sh --simulator  by the simulator alone, without a test: what reads the log and what is read back
#     SEEDS=1000 tests/coverage.sh   more worlds than 200; with --simulator than 3,000
#
# Runs `cargo test --lib --test core` without the shell, and `tools sim`. Some ten minutes on two cores, of which most is
# building. With --simulator `tools sim` alone, optimized, in about as long: a line of storage that says what is wrong and
# that no world has run is a fault that the simulator lacks, or one that no disk can bring about. With --missed as well it
# names them. Needs `cargo install cargo-llvm-cov` and `rustup component add llvm-tools`.
set -euo pipefail
cd "$(dirname "$0")/.."

missed='' alone=''
for argument; do
    case $argument in
        --missed) missed=yes ;;
        --simulator) alone=yes ;;
        *) echo "$0: $argument is not known" >&2 && exit 2 ;;
    esac
done
if [[ $alone ]]; then
    seeds=${SEEDS:-3000}
    files='src/(wal/|group/(recover|snapshot|taking|install|islands)(\.rs|/)|shard/(recover|batch|truncate|read_log|streaming|snapshots)(\.rs|/))'
    export CARGO_PROFILE_DEV_OPT_LEVEL=2
else
    seeds=${SEEDS:-200}
    files='src/((wal|raft|wire)/|(shard|group)/recover(\.rs|/))'
fi
other='/(tests|generated)(/|\.rs)'

source <(cargo llvm-cov show-env --sh)
cargo llvm-cov clean --workspace
[[ $alone ]] || cargo test --no-default-features --lib --test core >&2
cargo run --package tools -- sim --seeds "$seeds" >&2

report=(cargo llvm-cov report --ignore-filename-regex "$other")
if [[ $missed ]]; then
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
