# The programs as a user calls them: train, resume bit for bit, sample, evaluate, and what they refuse.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
small="--hidden 8 --time-dim 4 --steps 4 --batch 16 --threads 1"
: "${CFLAGS:=-std=c99 -O2}" "${OPENMP=$(sh tests/openmp.sh "$CC")}"
status() { "$@" > "$work/out" 2> "$work/err"; echo $?; }

# A run, and one that is ended by Ctrl-C and resumed to the same number of iterations.
made build/train
build/train dw4 --out "$work/a" --iterations 6 $small > "$work/out" 2> "$work/err"; ok "train" $?
for f in checkpoint.safetensors log.jsonl samples.npy report.html; do
    [ -s "$work/a/$f" ]; ok "train writes $f" $?
done
interrupt='kill -INT $pid'
at_line measuring "$interrupt" build/train dw4 --out "$work/b" --iterations 3 $small
[ $? = 130 ] && grep -q 'stopped while measuring: checkpoint and samples' "$work/err"
ok "Ctrl-C while measuring" $?
at_line measuring "$interrupt" build/train dw4 --out "$work/b" --resume --iterations 6 --threads 1
[ $? = 130 ] && cmp "$work/a/samples.npy" "$work/b/samples.npy"; ok "a resumed run draws the same samples" $?
[ "$(status build/train dw4 --out "$work/a" $small)" = 2 ]; ok "a folder that holds a run is refused" $?
end_of_part basics

made examples
$CC -O2 examples/ring.c -o "$work/ring" -lm && "$work/ring" > "$work/out" 2> "$work/err"; ok "ring by one line" $?
for f in examples/*.c; do
    [ $f = examples/detect.c ] || $CC $CFLAGS -Werror -fsyntax-only $f 2> "$work/err"; ok "$f by one line" $?
done
build/train dw4 --out "$work/b" --resume --iterations 2 --threads 1 > "$work/out" 2> "$work/err"
ok "resume" $?
grep -q 'has 6 iterations already, and --iterations asks for 2' "$work/err"
ok "iterations that are there already" $?
[ -s "$work/b/report.html" ] && cmp "$work/a/samples.npy" "$work/b/samples.npy"
ok "which change no samples" $?

# While a run trains, two others into its folder.
intrude()
{
    for how in "--force $small" "--resume --threads 1"; do
        build/train dw4 --out "$work/two" --iterations 6 $how > "$work/others" 2>&1
        [ $? = 1 ] && grep -q 'two: another train is writing there' "$work/others"
        ok "a second run: ${how%% *}" $?
    done
    kill -INT $pid
}
at_line ELBO intrude build/train dw4 --out "$work/two" --minutes 10 $small
[ $? = 130 ] && [ -s "$work/two/log.jsonl" ] && ! grep -v '^{.*}$' "$work/two/log.jsonl"
ok "the first run is not disturbed" $?
build/train dw4 --out "$work/two" --force --iterations 2 --tau 2 $small > "$work/out" 2> "$work/err"
ok "a folder that a run has left" $?

build/sample "$work/a" -n 100 -o "$work/x.npy" 2> "$work/err" &&
    build/sample "$work/a/checkpoint.safetensors" -n 100 -o "$work/y.npy" 2> "$work/err" &&
    cmp "$work/x.npy" "$work/y.npy"
ok "sample from a folder and from its checkpoint" $?
[ "$(status build/sample "$work/a" -n 100 -o "$work/none/x.npy")" = 1 ]; ok "a folder that is missing" $?
[ "$(status build/sample "$work/a" -n 2147483647 -o "$work/z.npy" --refine 5)" = 1 ] && grep -q -E 'GB of memory|2e9' "$work/err"
ok "sample: more than memory holds" $?
# A disk that lacks a byte for 1000 rows, and a full one.
cat > "$work/room.c" <<'END'
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "vgs.h"
#define PROGRAM "room"
#include "examples/common.h"
#include <sys/statvfs.h>
static unsigned long blocks, block;
static int a_disk(const char *path, struct statvfs *s)
{
    s->f_bavail = blocks;
    s->f_frsize = block;
    return !*path;
}
#define statvfs(path, s) a_disk(path, s)
#include "examples/room.h"
int main(int argc, char **argv)
{
    blocks = strtoul(argv[argc - 2], NULL, 10);
    block = strtoul(argv[argc - 1], NULL, 10);
    return !has_room(argv[1], 1000, 8e6, 8e6);
}
END
$CC -std=c99 -O0 -DVGS_STATIC -I. "$work/room.c" -o "$work/room" -lm; ok "room.h compiles" $?
[ "$(status "$work/room" "$work/q.npy" 7999999 1)" = 1 ] && grep -q 'file of 8 MB, .* for 7 MB' "$work/err"
ok "a disk without room: what is needed is more than what there is" $?
[ "$(status "$work/room" "$work/q.npy" 300 512)" = 1 ] && grep -q 'file of 8 MB, .* for 153 kB' "$work/err"
ok "a small disk" $?
[ "$(status "$work/room" "$work/q.npy" 0 4096)" = 1 ] && grep -q 'room for 0 kB' "$work/err"
ok "a full disk" $?
[ "$(status "$work/room" "$work/q.npy" 8000000 1)" = 0 ]; ok "a disk with just enough room" $?

build/evaluate dw4 "$work/x.npy" --json > "$work/json" 2> "$work/err"; ok "evaluate --json" $?
grep -q '100 rows are few: below about 1000' "$work/err"; ok "evaluate of few rows says so" $?
build/sample "$work/a" -n 3 -o "$work/few.safetensors" > "$work/out" 2> "$work/err" &&
    grep -q 'no k-hat (it takes more rows)' "$work/out" && ! grep -q -w inf "$work/out"
ok "three weights have no k-hat" $?
# 16 numbers, the first a NaN, as NumPy writes them
printf '\223NUMPY\001\000\166\000%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 8), }" > "$work/nan.npy"
printf '\000\000\300\177' >> "$work/nan.npy"
head -c 60 /dev/zero >> "$work/nan.npy"
[ "$(status build/evaluate dw4 "$work/x.npy" --reference "$work/nan.npy")" = 1 ] && grep -q 'nan.npy: 1 of 2 rows.*row 0' "$work/err"
ok "a NaN in the reference is named" $?
for key in n energy_mean energy_median reference_energy_mean w2 w2_floor tvd_d tvd_d_floor floor_n n_w2; do
    grep -q "\"$key\"" "$work/json"; ok "evaluate's key $key" $?
done
! grep -q delta_std "$work/json"; ok "keys that do not apply are absent" $?
for key in w2_aligned w2_aligned_floor energy_w2 energy_w2_floor outliers outliers_floor n_w2_aligned; do
    grep -q "\"$key\"" "$work/json"; ok "evaluate's key $key" $?
done
! grep -q -E '"(ess|khat|log_z|elbo|eubo|energy_calls|log_z_forward)"' "$work/json"
ok "an .npy file has no weights" $?
build/sample "$work/a" -n 100 -o "$work/x.safetensors" > "$work/out" 2> "$work/err" && grep -q ESS/N "$work/out"
ok "sample with weights" $?
build/evaluate dw4 "$work/x.safetensors" --checkpoint "$work/a" --reference "$work/x.npy" --json > "$work/json" 2> "$work/err"
ok "evaluate with weights and a checkpoint" $?
for key in ess khat log_z log_z_se elbo inside log_z_forward eubo verdict; do
    grep -q "\"$key\"" "$work/json"; ok "evaluate's key $key" $?
done
grep -q '"energy_calls": 200[,}]' "$work/json"; ok "two energy calls a sample" $?
! grep -q log_z_error "$work/json"; ok "no error of a log Z that is not known" $?
build/sample "$work/a" -n 100 -o "$work/s.safetensors" --smc 0.99 > "$work/out" 2> "$work/err" &&
    ! cmp -s "$work/x.safetensors" "$work/s.safetensors"
ok "sample --smc" $?
build/evaluate dw4 "$work/s.safetensors" --reference "$work/x.npy" --json 2> "$work/err" | grep -q '"smc": 0.99.*"ess_by_error"'
ok "evaluate of SMC's samples" $?
[ "$(status build/sample "$work/a" -n 9 -o "$work/s.npy" --smc 0.5)" = 2 ] && grep -q weights "$work/err"
ok "--smc without a place for weights is refused" $?
[ "$(status build/sample "$work/a" -n 9 -o "$work/s.safetensors" --smc 0.5 --noise-scale 0.9)" = 2 ] &&
    grep -q -e --noise-scale "$work/err"
ok "--smc at another noise scale says why not" $?
build/sample "$work/a" -n 100 -o "$work/c.safetensors" --correct 2 > "$work/out" 2> "$work/err" &&
    grep -q 'ESS/N' "$work/out" && build/sample "$work/a" -n 100 -o "$work/c0.npy" --correct 0 2> "$work/err" &&
    build/sample "$work/a" -n 100 -o "$work/c2.npy" --correct 2 2> "$work/err" &&
    ! cmp -s "$work/c0.npy" "$work/c2.npy"
ok "sample --correct" $?
for k in 0 2; do
    build/sample "$work/a" -n 100 -o "$work/c.safetensors" --correct $k 2> "$work/err"
    build/evaluate dw4 "$work/c.safetensors" --checkpoint "$work/a" --reference "$work/x.npy" --json 2> "$work/err" |
        tr ',' '\n' | grep '"eubo"' > "$work/eubo$k"
done
[ -s "$work/eubo0" ] && [ -s "$work/eubo2" ] && ! cmp -s "$work/eubo0" "$work/eubo2"
ok "evaluate scores as the samples were drawn" $?
[ "$(status build/sample "$work/a" -n 9 -o "$work/c.npy" --correct 2 --noise-scale 0.9)" = 1 ] &&
    grep -q 'correct = 2' "$work/err"
ok "--correct at another noise scale is refused" $?
build/sample "$work/a" -n 9 -o "$work/s.safetensors" --noise-scale 0.9 2> "$work/err" && grep -q 'no weights' "$work/err"
ok "biased samples without weights" $?
[ "$(status build/evaluate gmm9 "$work/x.safetensors")" = 1 ] && grep -q 'not of gmm9' "$work/err"
ok "samples of another target are named" $?
[ "$(status build/evaluate dw4 "$work/x.npy" --checkpoint "$work/none")" = 1 ]; ok "a checkpoint that is missing" $?
[ "$(status build/evaluate gmm9 "$work/x.npy")" = 1 ] && grep -q 8 "$work/err"; ok "a wrong number of columns is named" $?
build/inspect "$work/a/checkpoint.safetensors" > "$work/out" && grep -q '^checksum: .*fits' "$work/out" &&
    grep -q '"batch": "16"' "$work/out" && grep -q 'F32 *\[4\] *"s2" [0-9.]* to [0-9.]*, mean' "$work/out" &&
    grep -q 'F32 *\[\] *"init_sigma" = [0-9]' "$work/out"
ok "inspect a checkpoint" $?
build/inspect "$work/a/checkpoint.safetensors" s2 "$work/s2" && [ "$(wc -c < "$work/s2")" -eq 16 ]
ok "inspect: the bytes of a tensor" $?
build/inspect "$work/x.npy" > "$work/out" && grep -q '^100 rows' "$work/out" && grep -q 'column 7: .* to .*, mean' "$work/out"
ok "inspect samples" $?
build/inspect "$work/nan.npy" > "$work/out" && grep -q 'column 0: .*, 1 not finite' "$work/out"
ok "inspect counts what is not finite" $?
[ "$(status build/inspect "$work/a/checkpoint.safetensors" none "$work/s2")" = 1 ] && grep -q 'no tensor none.*VGS_E_ARG' "$work/err"
ok "inspect: a tensor that is missing" $?
head -c 300 "$work/a/checkpoint.safetensors" > "$work/cut.safetensors"
[ "$(status build/inspect "$work/cut.safetensors")" = 1 ] && grep -q VGS_E_FORMAT "$work/err"; ok "inspect: a file that is cut" $?
# one integer above 2^53, as a counter of another program
printf '\100\000\000\000\000\000\000\000%-64s\001\000\000\000\000\000\040\000' \
    '{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}' > "$work/n.safetensors"
build/inspect "$work/n.safetensors" > "$work/out" && grep -q '^checksum: none' "$work/out" && grep -q '"n" = 9007199254740993' "$work/out"
ok "inspect: every digit of an integer" $?
[ "$(status build/train)" = 2 ]; ok "no target: usage" $?
[ "$(status build/train gmm9 --steps 0 --out "$work/c")" = 2 ] && grep -q 'steps = 0' "$work/err"
ok "a field that is 0 and must not" $?
[ "$(status build/train gmm9 --steps 0.5 --out "$work/c")" = 2 ]; ok "a field that is no integer" $?
[ "$(status build/train gmm9 --s2_start -1 --out "$work/c")" = 2 ] && grep -q -e '--s2-start = -1' "$work/err"
ok "messages name the flag of a field" $?
[ "$(status build/train gmm9 --one-step --lambda 1 --out "$work/c")" = 2 ] && grep -q -e '--lambda = 1.*with --published' "$work/err"
ok "and those of fields that it goes against, under a name of before, too" $?
[ "$(status build/sample "$work/a" -n 9 -o "$work/a/checkpoint.safetensors")" = 2 ] && grep -q 'is the checkpoint' "$work/err"
ok "sample does not write over its checkpoint" $?
[ "$(status build/sample "$work/x.safetensors" -n 9 -o "$work/s.npy")" = 2 ] && grep -q 'x.safetensors: holds samples' "$work/err"
ok "samples are no checkpoint" $?
mkdir "$work/empty"
[ "$(status build/train gmm9 --resume --out "$work/empty")" = 2 ] && grep -q 'empty: no checkpoint' "$work/err"
ok "nothing to resume" $?
[ "$(status build/sample "$work/empty" -n 9 -o "$work/s.npy")" = 1 ] && grep -q 'empty: a folder without' "$work/err"
ok "a folder without a run" $?
[ "$(status build/sample "$work/a" -n 9 -o "$work/s.txt")" = 2 ] && grep -q 's.txt: .*npy or .safetensors' "$work/err"
ok "sample: an ending that says nothing" $?
[ "$(status build/reference gmm9 -n 9 -o "$work/s.safetensors")" = 2 ] && grep -q 's.safetensors: .*npy' "$work/err"
ok "reference: the same" $?
if [ -z "$OPENMP" ]; then
    [ "$(status build/evaluate gmm9 "$work/x.npy" --threads 2)" = 2 ] && grep -q fopenmp "$work/err"
    ok "threads in a build without them are refused" $?
fi

build/reference dw4 -n 64 -o "$work/r.npy" --burn-in 64 --seed 3 --threads 1 > "$work/out" 2> "$work/err"; ok "reference" $?
for word in energy R-hat ESS acceptance "log Z" "round trips" "energy calls"; do
    grep -q "$word" "$work/out"; ok "reference prints $word" $?
done
build/reference dw4 -n 64 -o "$work/q.npy" --burn_in=64 --seed=3 --json > "$work/json" 2> "$work/err" &&
    cmp "$work/r.npy" "$work/q.npy"
ok "reference: same seed, same rows; keys take - or _" $?
for key in rhat ess acceptance log_z log_z_se round_trips energy_mean energy_se energy_calls; do
    grep -q "\"$key\"" "$work/json"; ok "reference's key $key" $?
done
for m in hmc mala metropolis lmc; do
    build/reference lj13 -n 64 -o "$work/q.npy" --method $m --calls 20000 --json > "$work/json" 2> "$work/err" &&
        [ "$(sed 's/.*"energy_calls": *\([0-9]*\).*/\1/' "$work/json")" -le 20000 ]
    ok "reference by $m within a limit of calls" $?
done
build/reference gmm9 -n 50 -o "$work/q.npy" > "$work/out" 2> "$work/err" && grep -q "exact draws" "$work/out"
ok "reference draws exactly where it can" $?
[ "$(status build/reference lj13 -n 64 -o "$work/q.npy" --method exact)" = 1 ] && grep -q "no exact samples" "$work/err"
ok "reference: no exact samples" $?
[ "$(status build/reference dw4 -n 64 -o "$work/q.npy" --calls 100)" = 1 ] && grep -q "too few" "$work/err"
ok "reference: too few calls" $?
[ "$(status build/reference dw4 -n 64 -o "$work/q.npy" --method nuts)" = 2 ] && grep -q nuts "$work/err"
ok "reference: a method that does not exist" $?
[ "$(status build/reference lj55 -n 2147483647 -o "$work/q.npy")" = 1 ] && grep -q 'n 2147483647: .* GB of memory' "$work/err"
ok "reference: more than memory holds" $?
build/reference gmm9 -n 13000000 -o "$work/q.npy" > "$work/out" 2> "$work/err" && grep -q '104 MB of memory, a file of 104 MB, about' "$work/err"
ok "reference says beforehand what is large" $?
rm "$work/q.npy"
for bad in "" "dw4" "dw4 -n 5" "nosuch -n 5 -o x.npy" "dw4 -n 0 -o x.npy" "dw4 -n 5 -o x.npy --seed -1" \
    "dw4 -n 5 -o x.npy --method pt --local lmc"; do
    [ "$(status build/reference $bad)" = 2 ]; ok "reference $bad: usage" $?
done
# A policy: a run and one that is resumed, draws, evaluation, what is refused
for how in "dxdp" "logvar --reference pis --drift-energy 1"; do
    policy="--kernel policy --objective $how --policy-hidden 8 $small"
    build/train four-gauss --out "$work/p" --force --iterations 6 $policy > "$work/out" 2> "$work/err" && grep -q 'sigma_t from' "$work/out" &&
        build/train four-gauss --out "$work/r" --force --iterations 3 $policy > "$work/out" 2> "$work/err" &&
        build/train four-gauss --out "$work/r" --resume --iterations 6 --threads 1 > "$work/out" 2> "$work/err" &&
        cmp "$work/p/samples.npy" "$work/r/samples.npy"
    ok "policy, $how: a resumed run draws the same samples" $?
    build/sample "$work/p" -n 300 -o "$work/p.safetensors" > "$work/out" 2> "$work/err" && grep -q 'log Z' "$work/out" &&
        build/evaluate four-gauss "$work/p.safetensors" --checkpoint "$work/p" --json > "$work/json" 2> "$work/err" && grep -q '"ess"' "$work/json"
    ok "policy, $how: sample, evaluate" $?
done
for bad in "td --kernel policy" "dxdp" "logvar --kernel policy --policy egnn" "dxdp --kernel policy --reference pis"; do
    [ "$(status build/train four-gauss --out "$work/q" --objective $bad)" = 2 ] && grep -q -e '^train: --[a-z-]* = [a-z]*: ' "$work/err"
    ok "policy, $bad: usage" $?
done
[ "$(status build/train gmm9 --out "$work/q" --energy-features 1)" = 2 ] && grep -q 'energy-features = 1: needs coordinates' "$work/err"
ok "what plain coordinates have no use for is refused" $?
# ebm: a run and one that is resumed, scores, draws, evaluation, what is refused
tiny="--hidden 8 --time-dim 4 --steps 4 --batch 16 --energy-hidden 8 --threads 1"
build/ebm demo rings --out "$work/e" --iterations 6 --energy-decay 9 $tiny > "$work/demo" 2> "$work/err" && grep -q log-likelihood "$work/demo"
ok "ebm demo" $?
for f in checkpoint.safetensors log.jsonl report.html; do
    [ -s "$work/e/$f" ]; ok "ebm writes $f" $?
done
for key in e_data e_start e_draws g gamma_share drift_first start_distance draw_distance spread energy_valid; do
    grep -q "\"$key\"" "$work/e/log.jsonl"; ok "ebm logs $key" $?
done
build/ebm demo rings --out "$work/g" --iterations 4 --energy-decay 9 $tiny > "$work/out" 2> "$work/err" &&
    build/ebm demo rings --out "$work/g" --resume --iterations 6 --threads 1 > "$work/out" 2> "$work/err" &&
    [ "$(grep -o 'log-likelihood.*' "$work/out")" = "$(grep -o 'log-likelihood.*' "$work/demo")" ]
ok "ebm demo: a resumed run has the same held-out rows" $?
build/ebm demo rings --out "$work/g" --resume --iterations 6 --threads 1 > "$work/out" 2> "$work/err" &&
    ! grep -q '<dt>Mean e of data' "$work/g/report.html"
ok "ebm: what was not measured is not shown" $?
build/ebm sample "$work/e" -n 300 -o "$work/good.npy" > "$work/out" 2> "$work/err" &&
    build/reference gmm9 -n 300 -o "$work/bad.npy" > "$work/out" 2> "$work/err"
ok "ebm sample" $?
at_line e+ "$interrupt" build/ebm train "$work/good.npy" --out "$work/f" --iterations 2000000 --energy-decay 9 $tiny
[ $? = 130 ] && grep -q 'stopped at iteration' "$work/err"; ok "ebm: Ctrl-C" $?
stopped=$(sed -n 's/.*stopped at iteration \([0-9]*\).*/\1/p' "$work/err")
build/ebm train "$work/good.npy" --out "$work/f" --resume --iterations $((stopped + 2)) --threads 1 > "$work/out" 2> "$work/err" &&
    build/ebm train "$work/good.npy" --out "$work/h" --iterations $((stopped + 2)) --energy-decay 9 $tiny > "$work/out" 2> "$work/err" &&
    build/ebm score "$work/f" "$work/bad.npy" -o "$work/s1.npy" 2> "$work/err" &&
    build/ebm score "$work/h" "$work/bad.npy" -o "$work/s2.npy" 2> "$work/err" && cmp "$work/s1.npy" "$work/s2.npy"
ok "ebm: a resumed run gives the same scores" $?
build/ebm evaluate "$work/e" "$work/good.npy" "$work/bad.npy" --json > "$work/json" 2> "$work/err"; ok "ebm evaluate" $?
for key in auroc average_precision energy_good energy_bad log_likelihood log_likelihood_se; do
    grep -q "\"$key\"" "$work/json"; ok "ebm evaluate's key $key" $?
done
build/ebm sample "$work/e" -n 50 -o "$work/e.safetensors" --refine 3 > "$work/out" 2> "$work/err" && grep -q refined "$work/err" &&
    ! grep -q log_weight "$work/e.safetensors"
ok "ebm sample --refine" $?
build/ebm train "$work/bad.npy" --out "$work/d" --objective cd --sphere 1 --fit-autoencoder 3 --energy-code 1 \
    --iterations 4 $tiny > "$work/out" 2> "$work/err" && ! grep -q log-likelihood "$work/out"
ok "ebm on the sphere" $?
build/ebm evaluate "$work/d" "$work/good.npy" "$work/bad.npy" --json > "$work/json" 2> "$work/err" && ! grep -q log_l "$work/json"
ok "and no log-likelihood there" $?
[ "$(status build/ebm train "$work/good.npy" --out "$work/e" $tiny)" = 2 ] && grep -q 'holds a run' "$work/err"
ok "ebm: a folder that holds a run is refused" $?
[ "$(status build/ebm train "$work/good.npy" --out "$work/q" --objective gcd --starts data)" = 2 ] &&
    grep -q 'starts = data: makes no sense with the objective gcd' "$work/err"
ok "ebm: a combination without sense" $?
[ "$(status build/ebm train "$work/nan.npy" --out "$work/q" --batch 2)" = 1 ] && grep -q 'nan.npy: row 0, column 0 is' "$work/err"
ok "ebm: a NaN in the data is named" $?
[ "$(status build/ebm train "$work/good.npy" --out "$work/q" --batch 301)" = 1 ] && grep -q '300 rows: fewer than --batch 301' "$work/err"
ok "ebm: fewer rows than a batch" $?
[ "$(status build/ebm score "$work/e" "$work/x.npy" -o "$work/q.npy")" = 1 ] && grep -q 'has 8 columns, the energy takes 2' "$work/err"
ok "ebm: columns that do not fit" $?
[ "$(status build/ebm train "$work/good.npy" --out "$work/q" --energy-limit 1e-3 $tiny)" = 1 ] && [ -s "$work/q/checkpoint.safetensors" ] &&
    grep -q '^ebm: |e| of row .* above --energy-limit = 0.001, .*: lower --energy-lr;' "$work/err"
ok "ebm: an energy that runs away leaves its checkpoint" $?
[ "$(status build/ebm train "$work/good.npy" --out "$work/q" --resume --energy-limit 1e4 --energy-lr 1e-4 --iterations 3 --threads 1)" = 0 ] &&
    grep -q 'npy: 3 iterations' "$work/out"
ok "ebm: what it says can be done" $?
[ "$(status build/ebm train "$work/good.npy" --out "$work/q" --resume --iterations 5 --threads 1)" = 0 ] &&
    grep -q 'the rate of E falls until iteration 5, where it did until 3' "$work/err"
ok "ebm: more iterations, and what becomes of the rate" $?
[ "$(status build/ebm train "$work/e.safetensors" --out "$work/q" --resume --iterations 6 --threads 1)" = 0 ] &&
    grep -q '50 rows, where training began with 300' "$work/err"
ok "ebm: other rows" $?
for bad in "--seed 5::--seed 5: the checkpoint has 0" "--objective cd::--objective cd: the checkpoint has gcd" \
    "--energy-ema 0.9::--energy-ema 0.9: the checkpoint has 0.998" "--value-lr 1::--value-lr 1: the checkpoint has 0.002,"; do
    [ "$(status build/ebm train "$work/good.npy" --out "$work/q" --resume ${bad%%::*})" = 2 ] && grep -q -e "${bad##*::}" "$work/err"
    ok "ebm --resume ${bad%%::*}" $?
done
# 0 that is typed is 0, not the default
build/ebm train "$work/good.npy" --out "$work/q" --force --iterations 2 --energy-ema 0 --energy-lr-end 0 --energy-gamma 0 --target-ema 0 \
    --energy-base-std 0 $tiny > "$work/out" 2> "$work/err" &&
    [ "$(grep -a -o '"\(energy_ema\|energy_lr_end\|energy_gamma\|target_ema\)":"1e-30"' "$work/q/checkpoint.safetensors" | wc -l)" -eq 4 ]
ok "ebm: 0 is 0" $?
for bad in "" "learn" "train" "train $work/good.npy" "demo cube --out $work/q" "score $work/e" "train x.npy --out q --energy egnn" \
    "score $work/e $work/good.npy -o $work/q.npy --iterations 3" "evaluate $work/e a b -o c" "train $work/good.npy more --out $work/q" \
    "sample $work/e -n 5" "sample $work/e -n 5 -o q.txt" "train $work/good.npy --out $work/q --minutes 0"; do
    [ "$(status build/ebm $bad)" = 2 ]; ok "ebm $bad: usage" $?
done
refuses() {                                      # WORDS FLAG...: exit 2, and why
    words=$1 && shift
    [ "$(status build/ebm train "$work/good.npy" --out "$work/q" --force "$@")" = 2 ] && grep -q -e "$words" "$work/err"
    ok "ebm $*: $words" $?
}
refuses '--langevin-steps: only' --objective gcd --langevin-steps 5
refuses '--langevin-steps = 0: must be > 0' --objective langevin --langevin-steps 0
refuses '--fit-autoencoder = 5: only an autoencoder' --fit-autoencoder 5
refuses '--energy-lr = -1: must be > 0' --energy-lr -1
refuses '--energy-start-degrees = 20: needs starts near' --energy-start-degrees 20
refuses '--starts = noise: makes no sense with the objective cd' --objective cd --starts noise
refuses '--energy foo: must be one of: mlp resnet autoencoder$' --energy foo
refuses '--energy-height = 0: must be' --energy resnet
refuses '--energy-ed-samples: only --objective discrepancy' --energy-ed-samples 4
refuses '--energy-code: only --energy autoencoder' --energy-code 4
refuses '--steps: --objective discrepancy has no sampler' --objective discrepancy --steps 5
refuses '--energy-start-steps = 0: must be > 0' --starts near --objective cd --energy-start-steps 0
build/ebm train "$work/good.npy" --out "$work/q" --force --sphere 1 --fit-autoencoder 1000000 --minutes 0.005 $tiny > "$work/out" 2> "$work/err" &&
    grep -q 'ends after [0-9]* of 1000000 iterations: its third' "$work/err"
ok "ebm: --minutes end pretraining" $?
at_line autoencoder "$interrupt" build/ebm train "$work/good.npy" --out "$work/q" --force --sphere 1 --fit-autoencoder 1000000 $tiny
[ $? = 130 ] && grep -q 'stopped at iteration [0-9]* of pretraining' "$work/err"
ok "ebm: Ctrl-C while pretraining" $?
build/ebm train "$work/good.npy" --out "$work/q" --force --sphere 1 --fit-autoencoder 1 --iterations 2 --hidden 8 --time-hidden 8 \
    --energy-hidden 8 --threads 1 > "$work/out" 2> "$work/err" && grep -q -e '--batch 300: as many as there are rows' "$work/err"
ok "ebm: fewer rows than the preset's batch" $?
build/ebm train "$work/good.npy" --out "$work/q" --force --objective discrepancy --iterations 2 --batch 16 --energy-hidden 8 --threads 1 \
    > "$work/out" 2> "$work/err" && grep -q '2/2' "$work/err" && ! grep -q nan "$work/err"
ok "ebm: discrepancy has no negatives to tell of" $?
build/ebm train "$work/good.npy" --out "$work/q" --force --minutes 0.08 --iterations 1000000 --energy-lr 1e-9 --value-lr 5e-3 \
    --tau 0.01 --seed 4 $tiny > "$work/out" 2> "$work/err" && grep -q 'data have more energy than negatives' "$work/q/log.jsonl"
ok "ebm: an energy that does not learn is said to be behind" $?
build/ebm train "$work/good.npy" --out "$work/q" --force --iterations 2 --energy-gamma 10 $tiny > "$work/out" 2> "$work/err" &&
    grep -q "the sampler does not follow E: it stands at gamma's limit, .* = 0.05" "$work/err" &&
    grep -q 'Warning: the sampler does not follow E.*(iterations 1 to 2)' "$work/q/report.html"
ok "ebm: a sampler that does not follow is said, and where" $?
build/reference manywell32 -n 60 -o "$work/wide.npy" > "$work/out" 2> "$work/err" &&
    build/ebm train "$work/wide.npy" --out "$work/q" --force --iterations 2 --hidden 8 --energy-hidden 8 --threads 1 \
        > "$work/out" 2> "$work/err" && grep -q '32 columns: gcd learns such rows badly' "$work/err" &&
    grep -a -q '"energy_objective":"gcd"' "$work/q/checkpoint.safetensors"
ok "ebm: many columns" $?
score=$(sed -n 's/.*to score them give \(.*\), to draw .*/\1/p' "$work/err") draw=$(sed -n 's/.*, to draw them //p' "$work/err")
[ -n "$score" ] && build/ebm train "$work/wide.npy" --out "$work/q" --force $score --fit-autoencoder 2 --iterations 2 --threads 1 \
    > "$work/out" 2> "$work/err" && grep -a -q '"energy_objective":"none"' "$work/q/checkpoint.safetensors"
ok "ebm: what is said to score many columns works" $?
[ -n "$draw" ] && build/ebm train "$work/wide.npy" --out "$work/q" --force $draw --pretrain 2 --iterations 2 --hidden 8 --energy-hidden 8 \
    --policy-hidden 8 --threads 1 > "$work/out" 2> "$work/err" && grep -a -q '"energy_objective":"dxmi"' "$work/q/checkpoint.safetensors"
ok "ebm: what is said to draw many columns works" $?
[ "$(status build/ebm demo digits "$work/wide.npy" --out "$work/q" --force)" = 1 ] && grep -q 'has 32 columns, pictures of 8 x 8 have 64' "$work/err"
ok "ebm demo digits: other pictures" $?
printf '\223NUMPY\001\000\166\000%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2), }" > "$work/empty.npy"
for arg in "$work/empty.npy $work/bad.npy" "$work/good.npy $work/empty.npy"; do
    [ "$(status build/ebm evaluate "$work/e" $arg)" = 1 ] && grep -q 'empty.npy: holds no rows' "$work/err"
    ok "ebm evaluate: no rows" $?
done
[ "$(status build/ebm train "$work/empty.npy" --out "$work/q" --force)" = 1 ] && grep -q 'empty.npy: holds no rows' "$work/err"
ok "ebm train: no rows" $?
{ printf '\223NUMPY\001\000\166\000%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 2), }"
  for i in 1 2 3 4 5 6 7 8 9 10; do printf 'abcdefghabcdefghabcdefghabcdefgh'; done; } > "$work/alike.npy"
for sphere in 0 1; do
    [ "$(status build/ebm train "$work/alike.npy" --out "$work/q" --force --sphere $sphere)" = 1 ] && grep -q 'alike.npy: all rows are alike' "$work/err"
    ok "ebm train: rows that are alike, --sphere $sphere" $?
done
build/ebm train "$work/good.npy" --out "$work/q" --force --minutes 0.005 --iterations 1000000 $tiny > "$work/out" 2> "$work/err" &&
    [ "$(sed -n 's/.*npy: \([0-9]*\) iterations.*/\1/p' "$work/out")" = "$(sed -n '$s/.*"iteration": \([0-9]*\),.*/\1/p' "$work/q/log.jsonl")" ]
ok "ebm: --minutes end training, whose last iteration is logged" $?
[ "$(grep -a -o '"energy_decay":"[0-9]*"' "$work/q/checkpoint.safetensors" | tr -dc 0-9)" -lt 1000000 ]
ok "ebm: and the rate falls until then" $?
build/ebm train "$work/good.npy" --out "$work/q" --force --init-sigma 1e-3 --s2-start 1e-8 --s2-end 1e-8 --iterations 2 $tiny \
    > "$work/out" 2> "$work/err" && grep -q '! all negatives are alike' "$work/err" && grep -q 'Warning: all negatives are alike' "$work/q/report.html"
ok "ebm: a sampler that collapses is said in the live line and the report" $?
# dxmi: pretraining, and training that takes it; by itself; the policy of another run with another T
small="--hidden 8 --energy-hidden 8 --policy-hidden 8 --time-dim 4 --policy-time-dim 4 --batch 16 --threads 1"
build/ebm pretrain "$work/good.npy" --out "$work/pre" --steps 4 --pretrain 6 $small > "$work/out" 2> "$work/err" &&
    grep -q '6 iterations of pretraining' "$work/out" && [ -s "$work/pre/report.html" ]
ok "ebm pretrain" $?
build/ebm sample "$work/pre" -n 5 -o "$work/x.safetensors" > "$work/out" 2> "$work/err"; ok "ebm sample: a policy alone" $?
[ "$(status build/ebm score "$work/pre" "$work/good.npy" -o "$work/q.npy")" = 1 ] && grep -q 'no energy yet' "$work/err"
ok "ebm score: a policy alone has no energy" $?
[ "$(status build/ebm train "$work/good.npy" --objective dxmi --out "$work/pre" --steps 3 $small)" = 2 ] &&
    grep -q -e '--steps 3: the policy in .* has 4' "$work/err"
ok "ebm: T of the policy, T asked" $?
build/ebm train "$work/good.npy" --objective dxmi --out "$work/t3" --policy-from "$work/pre" --steps 3 --iterations 4 $small > "$work/out" \
    2> "$work/err"
ok "ebm: the policy of another run, fewer steps" $?
build/ebm train "$work/good.npy" --objective dxmi --out "$work/pre" --iterations 6 $small > "$work/out" 2> "$work/err" &&
    grep -q log-likelihood "$work/out" && grep -q 'From noise to data' "$work/pre/report.html"
ok "ebm: training takes what is pretrained" $?
build/ebm train "$work/good.npy" --objective dxmi --steps 3 --pretrain 100000000 --minutes 0.01 --out "$work/own" $small > "$work/out" 2> "$work/err" &&
    grep -q 'its third of the minutes is up' "$work/err"
ok "ebm: dxmi pretrains by itself" $?
build/ebm train "$work/good.npy" --objective dxmi --pretrain 0 --policy-tau 0 --iterations 4 --out "$work/d1" $small > "$work/out" 2> "$work/err" &&
    build/ebm train "$work/good.npy" --objective dxmi --pretrain 0 --policy-tau 0 --iterations 2 --energy-decay 4 --out "$work/d2" $small \
        > "$work/out" 2> "$work/err" &&
    build/ebm train "$work/good.npy" --resume --iterations 4 --threads 1 --out "$work/d2" > "$work/out" 2> "$work/err" &&
    build/ebm score "$work/d1" "$work/bad.npy" -o "$work/s1.npy" 2> "$work/err" &&
    build/ebm score "$work/d2" "$work/bad.npy" -o "$work/s2.npy" 2> "$work/err" && cmp "$work/s1.npy" "$work/s2.npy"
ok "ebm: dxmi without pretraining, resumed" $?
one="--objective dxmi --energy-shared 1 --pretrain 0 --hidden 8 --policy-hidden 8 --batch 16 --threads 1"
build/ebm train "$work/good.npy" --iterations 4 --energy-decay 4 --out "$work/o1" $one > "$work/out" 2> "$work/err" &&
    build/ebm train "$work/good.npy" --iterations 2 --energy-decay 4 --out "$work/o2" $one > "$work/out" 2> "$work/err" &&
    build/ebm train "$work/good.npy" --resume --iterations 4 --threads 1 --out "$work/o2" > "$work/out" 2> "$work/err" &&
    build/ebm score "$work/o1" "$work/bad.npy" -o "$work/s1.npy" 2> "$work/err" &&
    build/ebm score "$work/o2" "$work/bad.npy" -o "$work/s2.npy" 2> "$work/err" && cmp "$work/s1.npy" "$work/s2.npy"
ok "ebm: value and energy as one network, resumed" $?
refuses 'hidden = 9: shared, and the value' $one --energy-hidden 9
[ "$(status build/ebm train "$work/good.npy" --objective dxmi --policy-from "$work/nowhere" --out "$work/q" --force $small)" = 1 ] &&
    grep -q 'nowhere' "$work/err"
ok "ebm: a policy that is missing" $?
refuses '--policy-from: needs' --objective gcd --policy-from "$work/pre"
[ "$(status build/ebm pretrain "$work/good.npy" --objective cd --out "$work/q" --force)" = 2 ] && grep -q 'pretrain makes a policy' "$work/err"
ok "ebm pretrain: of another objective" $?
at_line policy "$interrupt" build/ebm pretrain "$work/good.npy" --out "$work/late" --pretrain 100000000 --steps 4 $small
[ $? = 130 ] && [ "$(status build/ebm train "$work/good.npy" --objective dxmi --out "$work/late")" = 2 ] && grep -q 'holds a run' "$work/err" &&
    [ "$(status build/ebm train "$work/good.npy" --objective dxmi --policy-from "$work/late" --out "$work/q" --force $small)" = 1 ] &&
    grep -q 'its policy is not done' "$work/err"
ok "ebm: an unfinished policy is not taken" $?
build/ebm sample "$work/e" -n 40 -o "$work/e.safetensors" 2> "$work/err" &&
    build/ebm train "$work/e.safetensors" --out "$work/q" --force --iterations 2 $tiny > "$work/out" 2> "$work/err"
ok "ebm: the tensor x as data" $?
build/inspect "$work/q/checkpoint.safetensors" > "$work/out"; ok "ebm's checkpoint is inspected" $?
build/train gmm9 --steps 33 --help > "$work/out" && grep -q -e '--steps .*; 1..65535; = 33$' "$work/out" &&
    grep -q -e '--alpha .*; ve vp; = ve$' "$work/out"
ok "train --help: what a field can be and what it is" $?
for p in train sample evaluate reference inspect ebm; do build/$p --help > "$work/out"; ok "$p --help" $?; done
build/sample "$work/a" -n 200 -o "$work/r.safetensors" --refine 5 > "$work/out" 2> "$work/err" &&
    grep -q 'refined: 5' "$work/err" && ! grep -q log_weight "$work/r.safetensors" &&
    build/sample "$work/a" -n 200 -o "$work/r.npy" --refine 5 2> "$work/err"
ok "samples are refined, and have no weights then" $?
build/train gmm9 --preset none --on-sphere --iterations 1 --hidden 8 --out "$work/s" --threads 1 > "$work/out" 2> "$work/err" &&
    build/sample "$work/s" -n 5 -o "$work/s.npy" 2> "$work/err" &&
    [ "$(status build/sample "$work/s" -n 5 -o "$work/s.npy" --refine 5)" = 2 ] && grep -q 'not on the sphere' "$work/err"
ok "samples on a sphere are not refined by HMC in space" $?
finish
