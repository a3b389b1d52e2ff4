# The long tier: every compiler, sanitizer and processor that is installed runs the tests it can.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
export OMP_WAIT_POLICY=passive
some="rng ops nets td backend repro file checkpoint oom"
each() # LABEL TESTS RUNNER COMPILER...
{
    label=$1 list=$2 runner=$3; shift 3
    for t in $list; do
        "$@" tests/$t.c -o "$work/t" -lm > "$work/log" 2>&1 && $runner "$work/t" > "$work/log" 2>&1
        code=$?
        [ $code -eq 0 ] || show "$work/log"
        ok "$label: $t" $code
        [ $code -ne 0 ] || echo "$label: $t"                         # a sign of life: some take minutes
    done
}
have() { command -v "$1" > "$work/where" || { skip "$1 is not installed"; false; }; }
have clang && each "clang -O2" "$some sampler" "" clang -std=c99 -O2
sanitize="-std=c99 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
have clang && each "clang ASan, UBSan" "$some" "" clang $sanitize
have gcc && each "gcc -O3 gnu17 native" "gemm ops nets repro" "" gcc -std=gnu17 -O3 -march=native
have gcc && each "gcc ASan, UBSan" "file checkpoint oom" "" gcc $sanitize
x87="rng nets td"                                                    # (bits may depend on rows there)
m32() { "$@" -m32 "$work/m32.c" -o "$work/m32" 2> "$work/log" || { skip "$1 -m32 does not work"; false; }; }
echo 'int main(void) { return 0; }' > "$work/m32.c"
have gcc && m32 gcc && each "gcc -m32, SSE" "$some" "" gcc -std=c99 -m32 -O2 -msse2 -mfpmath=sse &&
    each "gcc -m32, x87" "$x87" "" gcc -m32 -O2 -mfpmath=387 &&
    each "gcc -m32, x87, -std=c99" "$x87" "" gcc -std=c99 -m32 -O2 -mfpmath=387
have clang && m32 clang && each "clang -m32, x87" "$x87" "" clang -std=c99 -m32 -O2 -mno-sse
have tcc && each "tcc" "$some" "" tcc
have clang && each "portable, clang" "repro" "" clang -O2 -DVGS_PORTABLE -ffp-contract=off
have tcc && each "portable, tcc" "repro" "" tcc -DVGS_PORTABLE
have aarch64-linux-gnu-gcc && have qemu-aarch64 &&
    each "aarch64" "rng gemm" "qemu-aarch64" aarch64-linux-gnu-gcc -std=c99 -O2 -static
have aarch64-linux-gnu-gcc && have qemu-aarch64 &&
    each "portable, aarch64" "repro" "qemu-aarch64" aarch64-linux-gnu-gcc -O2 -static -DVGS_PORTABLE -ffp-contract=off
finish
