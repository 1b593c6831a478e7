#!/bin/sh
# Asks Verifpal every question of docs/handshake*.vp and compares the answers with those kept in handshake.vp.txt.
# Needs: cargo install verifpal --version 1.6.7 --locked --ignore-rust-version
# With --write, keeps the answers instead. Takes about seven minutes of one core and 2 GB.
set -eu
cd "$(dirname "$0")"
command -v verifpal > /dev/null || { echo "verifpal is not installed; see the top of this file" >&2; exit 1; }

# A model that a change makes too large fails here, not in the machine's memory.
ulimit -v 8000000

answers=$(mktemp)
trap 'rm -f "$answers"' EXIT
verifpal --version > "$answers"
for model in handshake.vp handshake-*.vp; do
    echo
    echo "$model, two sessions each"
    # One line a question, the traces of attacks left out; in the order of the file.
    verifpal verify "$model" --sessions 2 --result-code 2> /dev/null |
        sed -n 's/^ *\(PASS\|FAIL\) [+x] \(.*\)$/\1 \2/p' | grep -v -e '(Analysis ' -e 'queries pass' -e 'quer.* fail'
done >> "$answers"

if [ "${1-}" = --write ]; then
    cp "$answers" handshake.vp.txt
else
    diff -u handshake.vp.txt "$answers" && echo "as kept"
fi
