#!/usr/bin/env bash
# Compares Outrigger with etcd, ZooKeeper and Redis end to end and writes a record with plots:
#
#     bench/compare.sh                  quick: three members, 1 to 256 connections (8 minutes)
#     bench/compare.sh rates            one suite of: quick single values pipeline mix rates
#     bench/compare.sh all              every suite, one record (45 minutes)
#     bench/compare.sh --help           every setting
#
# Builds both programs first; what is compared is installed by its package's name if it is missing (root).
# Settings are flags, or environment variables of the same name, which flags override: ROUNDS DURATION WARMUP SEED PORT DATA
# RECORD OUTRIGGER LOAD, SYSTEMS and CONNECTIONS (separated by spaces), UP_ARGS (words for `outrigger up`).
set -euo pipefail
cd "$(dirname "$0")/.."

# Without a server of its own, this checkout's is measured.
[ -n "${OUTRIGGER:-}" ] || cargo build --release --quiet
cargo build --release --quiet --package bench

flags=()
for name in ROUNDS DURATION WARMUP SEED PORT DATA RECORD OUTRIGGER LOAD; do
    [ -z "${!name:-}" ] || flags+=("--${name,,}" "${!name}")
done
[ -z "${SYSTEMS:-}" ] || flags+=(--systems "${SYSTEMS// /,}")
[ -z "${CONNECTIONS:-}" ] || flags+=(--connections "${CONNECTIONS// /,}")
for word in ${UP_ARGS:-}; do flags+=("--up-arg=$word"); done

exec "${CARGO_TARGET_DIR:-target}/release/compare-systems" ${flags[@]+"${flags[@]}"} "$@"
