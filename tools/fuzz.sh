#!/usr/bin/env bash
# Builds the fuzz targets (clang 19, libFuzzer, ASan, UBSan) and runs each for some seconds.
#   tools/fuzz.sh SECONDS [TARGET...]
# TARGET is a name of fuzz/NAME_fuzz.cpp without "_fuzz.cpp"; all if none is given. Finds go to out/fuzz/NAME/, the
# growing corpus to build/fuzz/corpus/NAME; copy what is worth keeping to fuzz/corpus/NAME.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
fi
shift
targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
    mapfile -t targets < <(ls fuzz/*_fuzz.cpp | sed 's|^fuzz/\(.*\)_fuzz\.cpp$|\1|')
fi

[ -f build/fuzz/build.ninja ] || cmake --preset fuzz >/dev/null
ninja -C build/fuzz "${targets[@]/%/_fuzz}"
failed=()
for target in "${targets[@]}"; do
    mkdir -p "build/fuzz/corpus/$target" "out/fuzz/$target"
    echo "== fuzzing $target for $seconds s"
    log=out/fuzz/$target/log
    if build/fuzz/bin/"${target}_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="out/fuzz/$target/" "build/fuzz/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
        sed -n 's/^stat::number_of_executed_units: */   inputs tried: /p' "$log"
    else
        failed+=("$target")
        tail -40 "$log"
    fi
done
if [ "${#failed[@]}" -ne 0 ]; then
    echo "fuzz: failed: ${failed[*]} (inputs and logs under out/fuzz/)" >&2
    exit 1
fi
