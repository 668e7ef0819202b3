#!/usr/bin/env bash
# Changes one thing at a time in the log, in Raft and in the wire (`>` for `>=`, a function for its default …) and asks
# whether a test fails.
#
#     tests/mutants.sh                             all 2,700 of them: 14 minutes of processor time
#     tests/mutants.sh -F 'wal/(batch|record)'     those whose file:function a regular expression finds
#
# All mutants are in one test binary, each switched on by its number (`tests/mutants`), so that nothing is built
# twice. Prints what no test noticed and a table; lists are in target/mutants: missed.txt, and outcomes.txt for all. What
# is changed is a crate of these three folders alone (target/mutants/crate): what only the shard or the simulator
# notices is missed here, and lines that cannot matter are too.
set -euo pipefail
cd "$(dirname "$0")/.."

crate=target/mutants/crate
rm -rf "$crate"
mkdir -p "$crate/src"
cp -r src/{wal,raft,wire,id.rs,limits.rs,entry.rs,planted.rs} "$crate/src/"
cp tests/mutants/src/on.rs "$crate/src/mutant.rs"
cp Cargo.lock rust-toolchain.toml "$crate/"
{
    echo '//! Three folders and what they need.'
    # What a mutant does need not make sense.
    echo '#![allow(warnings, arithmetic_overflow, unconditional_panic)]'
    printf 'pub mod %s;\n' entry id limits mutant planted wire raft wal
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
export CARGO_TARGET_DIR=$PWD/target/mutants/build
cargo run --quiet --release --manifest-path tests/mutants/Cargo.toml -- "$crate" "$@"
