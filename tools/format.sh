#!/usr/bin/env bash
# Formats C and C++ with clang-format 19 and .clang-format.
#   tools/format.sh --check   exit 1 if a file would change, naming it
#   tools/format.sh --fix     change the files
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    --check) action=(--dry-run --Werror) ;;
    --fix) action=(-i) ;;
    *) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.cpp' '*.h' '*.c' | while read -r file; do
    if [ -f "$file" ]; then echo "$file"; fi
done)
if [ "${#files[@]}" -eq 0 ]; then
    echo "format: no files found: an empty run is a failure" >&2
    exit 1
fi
printf '%s\0' "${files[@]}" | xargs -0 -n 16 -P 2 clang-format-19 "${action[@]}"
echo "format: ${#files[@]} files"
