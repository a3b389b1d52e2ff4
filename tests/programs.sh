# The programs as a user calls them: train, resume bit for bit, sample, evaluate, and what they refuse.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
small="--hidden 8 --time-dim 4 --steps 4 --batch 16 --threads 1"
: "${OPENMP:=}"
for p in train sample evaluate; do
    [ -x build/$p ] || $CC -O2 $OPENMP examples/$p.c -o build/$p -lm || exit 1
done
status() { "$@" > "$work/out" 2> "$work/err"; echo $?; }

build/train dw4 --out "$work/a" --iterations 6 $small 2> "$work/err"; ok "train" $?
build/train dw4 --out "$work/b" --iterations 3 $small 2> "$work/err"; ok "train half" $?
build/train dw4 --out "$work/b" --resume --iterations 6 --threads 1 2> "$work/err"; ok "resume" $?
cmp "$work/a/samples.npy" "$work/b/samples.npy"; ok "a resumed run draws the same samples" $?
for f in checkpoint.safetensors log.jsonl samples.npy report.html; do [ -s "$work/a/$f" ]; ok "train writes $f" $?; done
[ "$(status build/train dw4 --out "$work/a" $small)" = 2 ]; ok "a folder that holds a run is refused" $?

build/sample "$work/a" -n 100 -o "$work/x.npy" 2> "$work/err" &&
    build/sample "$work/a/checkpoint.safetensors" -n 100 -o "$work/y.npy" 2> "$work/err" &&
    cmp "$work/x.npy" "$work/y.npy"
ok "sample from a folder and from its checkpoint" $?
[ "$(status build/sample "$work/a" -n 100 -o "$work/none/x.npy")" = 1 ]; ok "a folder that is missing" $?
build/evaluate dw4 "$work/x.npy" --json > "$work/json" 2> "$work/err"; ok "evaluate --json" $?
for key in n energy_mean energy_median reference_energy_mean w2 w2_floor tvd_d tvd_d_floor floor_n n_w2; do
    grep -q "\"$key\"" "$work/json"; ok "evaluate's key $key" $?
done
! grep -q delta_std "$work/json"; ok "keys that do not apply are absent" $?
[ "$(status build/evaluate gmm9 "$work/x.npy")" = 1 ] && grep -q 8 "$work/err"; ok "a wrong number of columns is named" $?
[ "$(status build/train)" = 2 ]; ok "no target: usage" $?
[ "$(status build/train gmm9 --steps 0.5 --out "$work/c")" = 2 ]; ok "a field that is no integer" $?
if [ -z "$OPENMP" ]; then
    [ "$(status build/evaluate gmm9 "$work/x.npy" --threads 2)" = 2 ] && grep -q fopenmp "$work/err"
    ok "threads in a build without them are refused" $?
fi
for p in train sample evaluate; do build/$p --help > "$work/out"; ok "$p --help" $?; done
finish
