#!/usr/bin/env bash
# Changes one thing at a time in the log, in Raft and in the wire (`>` for `>=`, a function for its default …) and asks
# whether a test fails.
#
#     tests/mutants.sh            all 2,600 of them: some six hours on two cores
#     tests/mutants.sh 3/20       the third of twenty parts, spread over all files: some twenty minutes
#     tests/mutants.sh 3/20 -F 'wal/(batch|record)'    of those, what a regular expression names
#
# Prints what no test noticed; lists are in target/mutants/mutants.out. What is changed is a crate of these three folders
# alone (target/mutants/crate), because that is built in seconds: what only the shard or the simulator notices is
# missed here, and lines that cannot matter are too. Needs `cargo install cargo-mutants`.
set -euo pipefail
cd "$(dirname "$0")/.."

part=${1:-1/1}
crate=target/mutants/crate
rm -rf "$crate"
mkdir -p "$crate/src"
cp -r src/{wal,raft,wire,id.rs,limits.rs,entry.rs,planted.rs} "$crate/src/"
cp Cargo.lock rust-toolchain.toml "$crate/"
{
    echo '//! Three folders and what they need.'
    printf 'pub mod %s;\n' entry id limits planted wire raft wal
} >"$crate/src/lib.rs"
# The dependencies that are not optional, of the manifest itself.
{
    printf '[workspace]\n[package]\nname = "outrigger"\nversion = "0.1.0"\nedition = "2024"\n'
    printf '[features]\nplanted-bugs = []\n[dependencies]\nbytes = "1"\nthiserror = "2"\n'
    sed -n '/^\[dependencies\]/,/^\[/p' Cargo.toml | grep -E '^[a-z0-9-]+ = ' | grep -v 'workspace\|optional'
    printf '[dev-dependencies]\n'
    grep -E '^(arbitrary|expect-test|proptest) = ' Cargo.toml
    printf '[profile.dev]\ndebug = 0\n[profile.test]\ndebug = 0\nopt-level = 1\n'
} >"$crate/Cargo.toml"

# A tenth of the schedules that `raft::tests::random` has: they would be most of the time.
export RAFT_SEEDS=${RAFT_SEEDS:-300} PROPTEST_MAX_SHRINK_ITERS=0
# Parts are counted from one here and from zero there.
shard=$((${part%/*} - 1))/${part#*/}
# The crate is where git looks at nothing.
cargo mutants --dir "$crate" --gitignore false --output target/mutants --exclude src/wire/generated.rs --exclude '**/tests/**' \
    --file 'src/wal/**' --file 'src/raft/**' --file 'src/wire/**' --shard "$shard" --sharding round-robin \
    --timeout 60 --jobs 2 "${@:2}" -- --lib
