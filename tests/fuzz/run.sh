#!/usr/bin/env bash
# Runs the fuzz targets one after the other and prints a line of a table for each.
#
#     tests/fuzz/run.sh                      10 million inputs each
#     tests/fuzz/run.sh 1000000 resp config  as many inputs, of these targets
#     SANITIZER=none tests/fuzz/run.sh       without AddressSanitizer: six times as many a second
#
#     MAX_LEN=512 tests/fuzz/run.sh          shorter inputs, more of them a second [4096]
#     HANG=60 tests/fuzz/run.sh              for a busy machine: seconds by the clock that an input may take
#
# The decoders have no unsafe code but for the accessors that flatc generates, which peer_frame and
# snapshot_chunk reach: AddressSanitizer has something to say there, and elsewhere it only costs. Overflows and
# failed assertions end a run either way.
#
# It needs nightly Rust and `cargo install cargo-fuzz`. What it finds on the way is kept in
# target/fuzz/found/NAME and built upon by the next run; tests/fuzz/corpus/NAME is only read. A failure
# leaves its input in tests/fuzz/artifacts/NAME and ends the script with an error, after the other
# targets have run.
set -euo pipefail
cd "$(dirname "$0")/../.."

runs=${1:-10000000}
shift || true
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
    targets=(segment_header wal_record recovery peer_frame resp snapshot_chunk members rules config identity)
fi
sanitizer=${SANITIZER:-address}
fuzz=(--fuzz-dir tests/fuzz --target-dir "target/fuzz-$sanitizer" -s "$sanitizer")
cargo +nightly fuzz build "${fuzz[@]}" >&2

echo "| target | executions | seconds | exec/s | failed | inputs found |"
echo "|---|--:|--:|--:|--:|--:|"
# Half of the time would go into giving memory back to the kernel and getting it again.
export MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_TOP_PAD_=16777216 MALLOC_MMAP_THRESHOLD_=1073741824
failed=0
for target in "${targets[@]}"; do
    found=target/fuzz/found/$target
    mkdir -p "$found"
    log=target/fuzz/$target-$sanitizer.log
    status=ok
    start=$SECONDS
    # One input: 4 KiB, a second, 32 MiB in one allocation, which is twice the largest frame.
    cargo +nightly fuzz run "${fuzz[@]}" "$target" "$found" "tests/fuzz/corpus/$target" -- \
        -runs="$runs" -max_len="${MAX_LEN:-4096}" -timeout="${HANG:-1}" -rss_limit_mb=1024 -malloc_limit_mb=32 \
        -print_final_stats=1 >"$log" 2>&1 || status=FAILED
    seconds=$((SECONDS - start))
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [[ $status != ok ]]; then
        failed=1
        grep -m1 -E 'panicked at|ERROR: ' "$log" >&2 || true
    fi
    executed=${executed:-0}
    echo "| $target | $executed | $seconds | $((executed / (seconds > 0 ? seconds : 1))) |" \
        "$([[ $status == ok ]] && echo 0 || echo "1, see $log") | $(ls "$found" | wc -l) |"
done
exit "$failed"
