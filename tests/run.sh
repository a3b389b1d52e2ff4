# Builds and runs the tests named, two at a time: make test, make test-quick, or sh tests/run.sh NAME...
# NAME:PART,PART runs parts of a test. The line of each comes as it ends, with all that failed in it; the last
# line is the sum: "N passed, N failed[, N skipped]". Ctrl-C ends all of them.
cd "$(dirname "$0")/.." || exit 1
mkdir -p build
export OMP_WAIT_POLICY=passive
: "${CC:=cc}" "${CXX:=c++}" "${CFLAGS:=-std=c99 -O2}" "${OPENMP:=}"
export CC CXX CFLAGS OPENMP

# One test: its output goes to build/NAME.log; its name, exit status and seconds to the loop below.
if [ "${1:-}" = --one ]; then
    test=${2%%:*} parts=""
    case $2 in *:*) parts=$(echo "${2#*:}" | tr , ' ') ;; esac
    trap 'echo "$test stopped"; exit 130' INT
    start=$(date +%s)
    if [ -f "tests/$test.sh" ]; then
        sh "tests/$test.sh" $parts > "build/$test.log" 2>&1
    else
        # -O2 where kernels and time matter; elsewhere plain C, which compiles four times faster, or -O1 where
        # that takes longer to run. Static: what a test does not use takes no time
        case $test in
        gemm | ops | ebm | curve | low_rank | backend | coordinates | sampler | weights | energy | metrics | mcmc)
            flags="" ;;
        rollout | oom) flags=-O1 ;;
        *) flags=-O0 ;;
        esac
        [ -z "$parts" ] || flags=-O0
        $CC $CFLAGS $flags -DVGS_STATIC $OPENMP "tests/$test.c" -o "build/test_$test" -lm > "build/$test.log" 2>&1 &&
            "./build/test_$test" $parts >> "build/$test.log" 2>&1
    fi
    status=$?
    echo "$test $status $(($(date +%s) - start))"
    exit 0
fi

. tests/sh.inc
[ $# -gt 0 ] || { echo "usage: sh tests/run.sh NAME[:PART,PART]..., or make test" >&2; exit 2; }
printf '%s\n' "$@" | xargs -P 2 -n 1 sh tests/run.sh --one | {
    trap '' INT
    ended="" stopped=""
    while read -r test status seconds; do
        if [ "$status" = stopped ]; then
            stopped=1
            continue
        fi
        ended="$ended $test "
        add_sum "build/$test.log" "$status"
        tail=""
        [ "$s" -eq 0 ] || tail=", $s skipped"
        echo "$test: $p passed, $f failed$tail, $seconds s${why:+ ($why)}"
        if [ "$f" -gt 0 ]; then show "build/$test.log"
        else grep '^skipped: ' "build/$test.log"; fi
    done
    if [ -n "$stopped" ]; then
        echo "stopped: not all tests were run"
        exit 130
    fi
    for test in "$@"; do
        case $ended in *" ${test%%:*} "*) ;; *) ok "${test%%:*} did not end" 1 ;; esac
    done
    finish
}
