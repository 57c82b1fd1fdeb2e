#!/usr/bin/env bash
# Shell scripts pass shellcheck, Python files compile.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t shell < <(git grep -lE '^#!.*\b(bash|sh|dash)\b' -- . ':!*.md' ':!*.py')
shellcheck -x -S warning -e SC2187 "${shell[@]}"
mapfile -t python < <(git ls-files '*.py')
python3 -c 'import ast, sys
for name in sys.argv[1:]:
    ast.parse(open(name).read(), name)' "${python[@]}"
echo "${#shell[@]} shell scripts, ${#python[@]} Python files"
