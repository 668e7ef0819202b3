#!/usr/bin/env bash
# docs/embedding.md, walked as it stands: a blank crate outside the workspace, the program and the test from the page.
#
#     tests/embedding.sh
#
# It builds the library once more, as an embedder does in debug: half a minute of processor time, and more if the dependencies
# are not built yet. What it built stays in target/ for the next.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Block number $1 of kind `rust` on the page.
block() { awk -v want="$1" '/^```rust$/ { n++; on = (n == want); next } /^```/ { on = 0 } on' "$root/docs/embedding.md"; }

cd "$work"
cargo new --quiet --vcs none blank
cd blank
cat >> Cargo.toml <<TOML
bytes = "1"
outrigger = { path = "$root" }

[profile.dev]
debug = false
TOML
{ block 1; printf '\n#[cfg(test)]\nmod tests {\n    use super::Longest;\n\n'; block 2; printf '}\n'; } > src/main.rs
# The versions that are tested here.
cp "$root/Cargo.lock" .

# O_DIRECT: the system's temporary directory may be a tmpfs.
mkdir -p "$root/target/tmp"
data=$(mktemp -d "$root/target/tmp/embedding.XXXXXX")
trap 'rm -rf "$work" "$data"' EXIT
export CARGO_TARGET_DIR="$root/target"
cargo build --quiet
said=$(cd "$data" && "$CARGO_TARGET_DIR/debug/blank" 2>"$data/log") || { cat "$data/log"; exit 1; }
[[ $said == 'Bulk(b"a text")' ]] || { echo "the program said: $said"; exit 1; }
cargo test --quiet
echo "the page's crate builds, runs, and passes its test"
