#!/usr/bin/env bash
# Shell scripts pass shellcheck, Python files compile.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t shell < <(git ls-files | while read -r file; do
    head -c 64 "$file" 2>/dev/null | head -n 1 | grep -qE '^#!.*\b(bash|sh|dash)\b' && echo "$file"
done)
shellcheck -x -S warning -e SC2187 "${shell[@]}"
mapfile -t python < <(git ls-files '*.py')
for file in "${python[@]}"; do
    python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$file"
done
echo "${#shell[@]} shell scripts, ${#python[@]} Python files"
