#!/usr/bin/env bash
# Runs clang-tidy 19 (.clang-tidy) over the compile database of the tidy preset.
#   tools/clang_tidy.sh [--base REF]   the sources that differ from REF (default: main), and those that include headers that do
#   tools/clang_tidy.sh --all          every source
#   tools/clang_tidy.sh FILE...        these sources
# What clang-tidy needs of the build is built first. Two sources at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
database=build/tidy

base=main
files=()
case "${1:-}" in
    --all) mode=all ;;
    --base) mode=changed; base=${2:?--base needs a commit} ;;
    "") mode=changed ;;
    -*) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) mode=given; files=("$@") ;;
esac

if ! command -v clang-tidy-19 >/dev/null; then
    echo "clang-tidy: there is no clang-tidy-19 here, nothing was checked" >&2
    exit 1
fi
[ -f $database/build.ninja ] || cmake --preset tidy >/dev/null
ninja -C $database build.ninja >/dev/null
# protoc's output and the tests' precompiled header have to exist; clang-tidy compiles the rest itself.
mapfile -t generated < <(ninja -C $database -t targets all | sed -n 's/^\(.*\.pb\.h\|.*\.pch\): .*/\1/p')
[ "${#generated[@]}" -eq 0 ] || ninja -C $database "${generated[@]}" >/dev/null

list_sources() { # our sources in the database, relative to the root
    sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' $database/compile_commands.json | sort -u |
        sed -n "s|^$PWD/||p" | grep -E '^(src|apps|fuzz|bench|tests)/'
}

list_changed() {
    local changed headers
    changed=$( (git diff --name-only "$(git merge-base "$base" HEAD)"; git ls-files --others --exclude-standard) |
        grep -E '\.(cpp|h)$' | sort -u || true)
    headers=$(grep -E '^src/.*\.h$' <<<"$changed" | sed 's|^src/||' || true)
    list_sources | while read -r source; do
        if grep -qxF "$source" <<<"$changed" ||
            { [ -n "$headers" ] && grep -qFf <(sed 's|.*|"&"|' <<<"$headers") "$source"; }; then
            echo "$source"
        fi
    done
}

case $mode in
    all) mapfile -t files < <(list_sources) ;;
    changed) mapfile -t files < <(list_changed) ;;
esac
if [ "${#files[@]}" -eq 0 ]; then
    echo "clang-tidy: nothing differs from $base"
    [ $mode = changed ] && exit 0
    exit 1
fi
echo "clang-tidy: ${#files[@]} sources"
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P 2 clang-tidy-19 -p $database --quiet --extra-arg=-Wno-unknown-warning-option
