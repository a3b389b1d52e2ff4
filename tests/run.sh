# Builds and runs every test; the last line is the sum: "N passed, N failed[, N skipped]". Called by make test.
cd "$(dirname "$0")/.." || exit 1
mkdir -p build
export OMP_WAIT_POLICY=passive
passed=0 failed=0 skipped=0

count() # the last line of the log $1 of the test $2 that ended with status $3
{
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1)
    p=$(echo "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
    f=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
    s=$(echo "$line" | sed -n 's/.* \([0-9]*\) skipped.*/\1/p')
    if [ -z "$line" ] || { [ "$3" -ne 0 ] && [ "${f:-0}" -eq 0 ]; }; then
        echo "$2: ended with status $3"
        f=$((${f:-0} + 1))
    fi
    [ "${f:-0}" -eq 0 ] || grep -v -E '^[0-9]+ passed' "$1" | head -n 30
    echo "$2: ${p:-0} passed, ${f:-0} failed${s:+, $s skipped}"
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
}

for t in $TESTS; do
    if $CC $CFLAGS $OPENMP tests/$t.c -o build/test_$t -lm > build/$t.log 2>&1; then
        ./build/test_$t > build/$t.log 2>&1
        count build/$t.log $t $?
    else
        count build/$t.log "$t (does not compile)" 1
    fi
done
for t in portable hygiene compile programs; do
    sh tests/$t.sh > build/$t.log 2>&1
    count build/$t.log $t $?
done
tail=""
[ $skipped -eq 0 ] || tail=", $skipped skipped"
echo "$passed passed, $failed failed$tail"
[ $failed -eq 0 ]
