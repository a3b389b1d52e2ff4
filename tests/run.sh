# Builds and runs every test, two at a time; the last line is the sum: "N passed, N failed[, N skipped]".
# Called by make test. sh tests/run.sh --one NAME does one of them.
cd "$(dirname "$0")/.." || exit 1
mkdir -p build
export OMP_WAIT_POLICY=passive
: "${CC:=cc}" "${CFLAGS:=-std=c99 -O2}" "${TESTS:=rng gemm ops nets td backend sampler rollout weights repro energy metrics mcmc file checkpoint oom}"

if [ "${1:-}" = --one ]; then
    t=$2
    if [ -f tests/$t.sh ]; then
        sh tests/$t.sh > build/$t.log 2>&1
    else
        # -O2 where kernels and time matter; elsewhere plain C, which compiles ten times faster
        case $t in gemm | ops | backend | sampler | weights | energy | metrics | mcmc) flags="" ;; *) flags=-O0 ;; esac
        $CC $CFLAGS $flags $OPENMP tests/$t.c -o build/test_$t -lm > build/$t.log 2>&1 &&
            ./build/test_$t > build/$t.log 2>&1
    fi
    echo $? > build/$t.status
    exit 0
fi

all="$TESTS portable hygiene compile programs opencl"
for t in $all; do rm -f build/$t.status; done
export CC CFLAGS OPENMP
echo "$all" | tr ' ' '\n' | xargs -P 2 -n 1 sh tests/run.sh --one
passed=0 failed=0 skipped=0
for t in $all; do
    status=$(cat build/$t.status)
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' build/$t.log | tail -n 1)
    p=$(echo "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
    f=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
    s=$(echo "$line" | sed -n 's/.* \([0-9]*\) skipped.*/\1/p')
    if [ -z "$line" ] || { [ "$status" -ne 0 ] && [ "${f:-0}" -eq 0 ]; }; then
        echo "$t: ended with status $status"
        f=$((${f:-0} + 1))
    fi
    [ "${f:-0}" -eq 0 ] || grep -v -E '^[0-9]+ passed' build/$t.log | head -n 30
    echo "$t: ${p:-0} passed, ${f:-0} failed${s:+, $s skipped}"
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
done
tail=""
[ $skipped -eq 0 ] || tail=", $skipped skipped"
echo "$passed passed, $failed failed$tail"
[ $failed -eq 0 ]
