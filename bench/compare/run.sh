#!/usr/bin/env bash
# Builds bench/compare and runs all of it; one record per benchmark goes to the folder named first:
#
#     bench/compare/run.sh bench/records            about seven minutes on a quiet machine, after the build
#     bench/compare/run.sh /tmp/records --rounds 5  the rest is handed to both benchmarks
#
# It installs fio with apt-get if it is missing, and needs gcc for raft-engine's lz4.
set -euo pipefail
cd "$(dirname "$0")/../.."

records=${1:?the folder where records go}
shift
command -v fio >/dev/null || apt-get install -y -q --no-install-recommends fio
cargo build --release --manifest-path bench/compare/Cargo.toml
compare=${CARGO_TARGET_DIR:-bench/compare/target}/release/compare
mkdir -p "$records"
for what in consensus log; do
    record=$records/$(date -u +%F)-compare-$what.md
    "$compare" "$what" "$@" >"$record.part"
    mv "$record.part" "$record"
    echo "$record"
done
