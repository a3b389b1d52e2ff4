# The portable build gives the same bits at -O0 and -O3: tests/repro.c knows the hash, tests/checkpoint.c what
# files of before became.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
for o in -O0 -O3; do
    $CC $o -DVGS_PORTABLE -ffp-contract=off -DVGS_STATIC tests/repro.c -o "$work/repro" -lm && "$work/repro" > "$work/log"
    ok "portable repro at $o: $(tail -n 1 "$work/log")" $?
    $CC $o -DVGS_PORTABLE -ffp-contract=off -DVGS_STATIC tests/checkpoint.c -o "$work/checkpoint" -lm &&
        (cd "$work" && ./checkpoint of_before > log)
    ok "portable checkpoint at $o: $(tail -n 1 "$work/log")" $?
done
finish
