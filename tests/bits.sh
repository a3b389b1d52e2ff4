# Does a change keep every bit? Builds the programs of two trees, runs the same commands with both, and compares
# what they write: tensors of checkpoints and samples, statistics, scores. Run by hand, on one machine.
#   sh tests/bits.sh OLD_COMMIT [NEW_COMMIT] [quick]
# Without NEW_COMMIT it is the working tree. Ten minutes of two cores; quick: two. Prints a line a
# case, then "N same, N differ"; status 0 if none differ. tests/bits.py tells what counts as a difference.
cd "$(dirname "$0")/.." || exit 1
usage() { echo "usage: sh tests/bits.sh OLD_COMMIT [NEW_COMMIT] [quick]" >&2; exit 2; }
: "${CC:=cc}" "${CFLAGS:=-std=c99 -O2}"
old="" new="" quick=false same=0 differ=0
for word in "$@"; do
    if [ "$word" = quick ]; then quick=true
    elif [ -z "$old" ]; then old=$word
    elif [ -z "$new" ]; then new=$word
    else usage; fi
done
[ -n "$old" ] || usage
for commit in $old $new; do git rev-parse -q --verify "$commit^{commit}" > /dev/null || usage; done
compare="python3 $PWD/tests/bits.py"
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export OMP_WAIT_POLICY=passive

# ==== the trees: $work/old and $work/new, with what both are given in $work/given =======================

mkdir "$work/old" "$work/new" "$work/given"
git archive "$old" | tar xf - -C "$work/old"
if [ -n "$new" ]; then git archive "$new" | tar xf - -C "$work/new"
else
    git ls-files -co --exclude-standard | while read -r f; do [ ! -f "$f" ] || echo "$f"; done |
        tar cf - -T - | tar xf - -C "$work/new"
fi
programs="build/train build/sample build/evaluate"
$quick || programs="$programs build/reference build/ring"
for tree in old new; do
    (cd "$work/$tree" && make CC="$CC" CFLAGS="$CFLAGS" $programs) > "$work/$tree.make" 2>&1 &
    builds="$builds $!"
done
for build in $builds; do wait "$build" || { cat "$work/old.make" "$work/new.make"; exit 1; }; done

# ==== commands and comparisons =========================================================================

line() # same|differs NAME TEXT
{
    if [ "$1" = same ]; then same=$((same + 1)); else differ=$((differ + 1)); fi
    printf '%-7s  %s: %s\n' "$1" "$2" "$3"
}

alike() # NAME OLD_FILE NEW_FILE [OLD_FILE NEW_FILE ...], in $work
{
    title=$1
    shift
    if text=$(cd "$work" && $compare "$@" 2>&1); then line same "$title" "$text"
    else line differs "$title" "$(echo "$text" | tail -n 1)"; fi
}

in_tree() # old|new COMMAND...
{
    tree=$1
    shift
    (cd "$work/$tree" && "$@") > "$work/$tree.out" 2> "$work/$tree.err" ||
        echo "$tree fails: $(grep -v '^Try' "$work/$tree.err" | tail -n 1)" > "$work/$tree.failed"
}

# A command in both trees at the same time, and the files that it makes there.
both() # NAME "FILE ..." COMMAND...
{
    name=$1 files=$2 pairs=""
    shift 2
    rm -f "$work"/*.failed
    in_tree old "$@" &
    in_tree new "$@"
    wait $!
    for f in $files; do pairs="$pairs old/$f new/$f"; done
    if cat "$work"/*.failed > "$work/failed" 2> /dev/null; then line differs "$name" "$(head -n 1 "$work/failed")"
    else alike "$name" $pairs; fi
}

to() { out=$1; shift; "$@" > "$out"; }           # FILE COMMAND...

# N iterations in all. What comes after them, 100000 draws and a report, is cut off by a signal.
train() # FOLDER N ARGUMENT...
{
    folder=$1 goal=$2
    shift 2
    build/train "$@" --out "$folder" --iterations "$goal" &
    until tail -n 1 "$folder/log.jsonl" 2> /dev/null | grep -q "\"iteration\": *$goal,"; do
        kill -0 $! 2> /dev/null || break
        sleep 0.1
    done
    kill -TERM $! 2> /dev/null
    wait $!
    ended=$?
    [ $ended -eq 0 ] || [ $ended -eq 130 ]
}

# ==== cases ============================================================================================

training() # TARGET PRESET ITERATIONS [FIELD...]
{
    target=$1 n=$3 label="$1 $2" fields="--preset $2"
    shift 3
    fields="$fields $*" label="$label${1:+ $*}"
    rm -rf "$work"/*/run "$work"/*/half "$work"/*/two "$work/given"/*
    both "$label, iteration $n" "run/checkpoint.safetensors run/log.jsonl" train run $n $target $fields --threads 1
}

# Both draw from the old tree's checkpoint, so that a difference here is not one of the training.
draws() # ROWS [OPTION...]: plain, and with each option
{
    sample="build/sample ../given/checkpoint.safetensors --seed 1 --threads 1 -n $1 -o"
    shift
    cp "$work/old/run/checkpoint.safetensors" "$work/given" || return
    both "$label, draw" x.safetensors $sample x.safetensors
    both "$label, draw of its own checkpoint" x.npy build/sample run --seed 1 --threads 1 -n 20 -o x.npy
    for option in "$@"; do both "$label, $option" y.safetensors $sample y.safetensors $option; done
    cp "$work/old/x.safetensors" "$work/given" &&
        both "$label, evaluate" scores.json to scores.json build/evaluate "$target" ../given/x.safetensors \
            --checkpoint ../given/checkpoint.safetensors --json --threads 1
}

run_is() # NAME FOLDER [old]: new's, or old's, checkpoint and log are those of FOLDER, too
{
    alike "$label, $1" "${3:-new}/run/checkpoint.safetensors" "$2/checkpoint.safetensors" \
        "${3:-new}/run/log.jsonl" "$2/log.jsonl"
}

# The training before in two parts, begun by either tree, and on two threads.
again() # ITERATIONS of the first part
{
    in_tree old train half "$1" $target $fields --threads 1 &
    in_tree new train half "$1" $target $fields --threads 1
    wait $!
    mv "$work/old/half" "$work/given"
    in_tree new train half $n $target --resume --threads 1 &
    in_tree new train ../given/half $n $target --resume --threads 1
    wait $!
    run_is "resumed at $1" new/half
    run_is "the old tree's resumed at $1" given/half old
    if [ -z "$openmp" ]; then echo "skipped  $label, two threads: the compiler has no OpenMP"; return; fi
    in_tree new train two $n $target $fields --threads 2
    run_is "two threads" new/two
    in_tree new build/sample two --seed 1 --threads 2 -n 20 -o two.npy
    alike "$label, draw on two threads" new/x.npy new/two.npy
}

# All of it in one go, and on one line
small_run() # TARGET FILES ARGUMENT...
{
    name=$1 files=$2 draw="build/sample run --seed 1 --threads 1 -n 100 -o"
    shift 2
    rm -rf run
    train run 4 "$name" "$@" --threads 1 --hidden 16 --time-dim 8 --time-hidden 16 --batch 32 --steps 6 || return
    for file in $files; do
        case $file in
        x.*) $draw $file ;;
        refined.*) $draw $file --refine 5 ;;
        smc.*) $draw $file --smc 0.5 ;;
        corrected.*) $draw $file --correct 2 ;;
        scores.json) to $file build/evaluate "$name" x.safetensors --checkpoint run --json --threads 1 ;;
        esac || return
    done
}
small() # TARGET PRESET [FIELD...]
{
    label="small $*" name=$1 files="run/checkpoint.safetensors run/log.jsonl x.safetensors refined.npy"
    shift
    case $label in
    *on-sphere*) files="run/checkpoint.safetensors run/log.jsonl x.safetensors smc.safetensors" ;;
    *skip-final-noise*) ;;                       # there are no weights
    *lj55*) files="$files smc.safetensors corrected.safetensors" ;;  # its reference takes a minute
    *) files="$files smc.safetensors corrected.safetensors scores.json" ;;
    esac
    both "$label" "$files" small_run "$name" "$files" --preset "$@"
}

openmp=$(sh tests/openmp.sh "$CC")
ways="--smc=0.5 --correct=2 --refine=5"
if $quick; then
    training gmm9 fast 50; draws 500 $ways; again 25
    training dw4 fast 3; draws 40 --smc=0.5
    training lj13 fast 2 --steps 20; draws 40 $ways
    training manywell32 fast 2; draws 40 --smc=0.5; again 1
    training gmm40 fast 3; draws 100 $ways
    training funnel fast 3; draws 100 $ways
    training four-gauss paper 5; draws 100 $ways
    training dw4 paper 1; draws 40 --smc=0.5
else
    training gmm9 fast 50; draws 500 $ways; again 25
    training dw4 fast 50; draws 300 $ways
    training lj13 fast 50; draws 40 $ways
    training four-gauss fast 10; draws 500 $ways
    training funnel fast 10; draws 500 $ways
    training manywell32 fast 5; draws 200 $ways; again 2
    training gmm40 fast 8; draws 500 $ways; again 5
    training four-gauss paper 5; draws 500 $ways
    training gmm9 paper 5; draws 200 $ways
    training funnel paper 2; draws 100 $ways
    training dw4 paper 5; draws 200 $ways; again 2
    training lj13 paper 2; draws 60 $ways
fi

# networks, losses, schedules and flags that no preset has
small gmm25 fast --relu --loss l1 --schedule linear --passes 2
small dw4 fast --layers 2 --move-coordinates --replay 4 --refine 3 --local-noise
small dw4 fast --value mlp --wrapper sorted --lr-half 2 --slope-loss 0.5 --lambda 0.5
small lj13 fast --windows 4
small lj55 fast --batch 4
small four-gauss fast --value deeper --schedule constant --target-ema 0 --alpha vp
small four-gauss paper --schedule sigmoid --init-sigma 2 --sigma-lr 0
small manywell32 fast --slope-loss 0 --replay 2 --explore 1.2 --detail-scale 0.1
small gmm9 paper --on-sphere --alpha ve --sigma-lr 0
small funnel fast --seed 7 --energy-max 50 --drift-max 1e30
small funnel paper
small lj13 paper

$quick || {
    for t in four-gauss gmm9 gmm25 gmm40 funnel manywell32; do
        both "$t, exact samples" x.npy build/reference $t -n 100 -o x.npy --threads 1
    done
    for m in pt hmc mala metropolis lmc; do
        both "dw4, $m" "x.npy stats.json" to stats.json build/reference dw4 -n 64 -o x.npy --method $m \
            --burn-in 64 --json --threads 1
        both "lj13, $m" "x.npy stats.json" to stats.json build/reference lj13 -n 64 -o x.npy --method $m \
            --calls 20000 --json --threads 1
    done
    both "ring" ring.txt to ring.txt build/ring
}
echo "$same same, $differ differ"
[ $differ -eq 0 ]
