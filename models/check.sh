#!/usr/bin/env bash
# Lets spin check one model exhaustively.
#   check.sh MODEL EXPECTED [LTL] [-DNAME[=VALUE]...]
# EXPECTED: holds   no state violates the model's assertions, nothing hangs, and the formula LTL holds
#           fails   spin finds a violation: what is checked can fail
set -euo pipefail
model=$1 expected=$2
shift 2
formula=
case "${1:-}" in
    "" | -D*) ;;
    *) formula=$1; shift ;;
esac
command -v spin >/dev/null || { echo "check: spin is missing: run ./setup" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$(dirname "$0")/$model.pml" "$work"
cd "$work"
spin "$@" -a "$model.pml" >spin.log 2>&1 || { cat spin.log >&2; exit 1; }
# The generated code is not ours to warn about. Depth, memory in MiB: limits that fail loudly.
options=(-w -DCOLLAPSE -DMEMLIM=4096)
[ "$expected" = fails ] || options+=(-O1)
run=(-m2000000 -w24)
if [ -n "$formula" ]; then
    run+=(-a -f -N "$formula")
    # Weak fairness counts processes.
    options+=(-DNFAIR=4)
else
    options+=(-DSAFETY -DNOCLAIM)
fi
gcc "${options[@]}" -o pan pan.c
./pan "${run[@]}" >pan.log 2>&1 || true

count() { sed -n "s/^ *\([0-9.e+]*\) states, stored.*/\1/p" pan.log; }
if ! grep -q 'errors: ' pan.log || grep -qE 'max search depth too small|out of memory|reached -DMEMLIM' pan.log; then
    cat pan.log >&2
    echo "check: the search of $model did not come to its end" >&2
    exit 1
fi
errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log)
if [ "$expected" = holds ] && [ "$errors" != 0 ]; then
    cat pan.log >&2
    spin "$@" -t -p -g "$model.pml" | tail -n 200 >&2 || true
    echo "check: $model $* is violated, the steps are above" >&2
    exit 1
fi
if [ "$expected" = fails ] && ! grep -q '^pan:1: assertion violated' pan.log; then
    echo "check: $model $* should be violated and is not: the check proves nothing" >&2
    exit 1
fi
echo "$model $* $formula: $expected, $(count) states"
grep -E '^pan:1: ' pan.log || true
