# How good are the fast presets, over seeds? Trains, draws, weighs, refines and measures, and prints a table.
# Called by make quality. sh bench/quality.sh [--quick] [--seeds "0 1 2"] [TARGET ...]
# What build/quality holds is not made again: a table that was broken off goes on, and new seeds can be added.
cd "$(dirname "$0")/.." || exit 1
: "${CC:=cc}" "${CFLAGS:=-std=c99 -O2}" "${OPENMP:=}" "${THREADS:=1}"
seeds="0 1 2" targets="" quick=false folder=build/quality points=20000 particles=5000
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=true folder=build/quality-quick points=2000 particles=500 ;;
    --seeds) shift; seeds=$1 ;;
    -*) echo "usage: sh bench/quality.sh [--quick] [--seeds \"0 1 2\"] [TARGET ...]"; exit 2 ;;
    *) targets="$targets $1" ;;
    esac
    shift
done
: "${targets:=lj13 funnel manywell32 dw4 gmm25 gmm40 gmm9 four-gauss}"   # slow ones first
mkdir -p $folder
for p in train sample evaluate; do $CC $CFLAGS $OPENMP examples/$p.c -o build/$p -lm || exit 1; done

# Seconds of the processor that a command and its children took, besides running it.
seconds() # LOG COMMAND...
{
    log=$1; shift
    ( "$@" > "$log" 2>&1 || exit 1; times ) |
        sed -n '2s/\([0-9]*\)m\([0-9.]*\)s.*/\1 \2/p' | awk '{ print 60 * $1 + $2 }'
}

# "name value" of every number of a JSON object, names with a prefix
numbers() # PREFIX FILE
{
    tr ',{}' '\n\n\n' < "$2" | sed -n "s/^ *\"\([a-z_0-9]*\)\": \(-\{0,1\}[0-9].*\)/$1\1 \2/p"
}

draw() # NAME SUFFIX OPTION...: $run, drawn and measured as $run.NAME.*
{
    file=$run.$1.$2 name=$1
    shift 2
    log=$run.$name.log json=$run.$name.json
    rm -f "$json"
    build/sample "$run" -n "$n" -o "$file" --seed 1 --threads "$THREADS" "$@" > "$log" 2>&1 &&
        build/evaluate "$target" "$file" --json --threads "$THREADS" $also > "$json" 2>> "$log"
    [ "$name" = plain ] && prefix="" || prefix=$name.
    if [ -s "$json" ]; then numbers "$prefix" "$json" >> "$run.part"
    else echo "$target, seed $seed, $name: $(tail -n 1 "$log")" >&2; fi
    rm -f "$file"
}

train() # $run/checkpoint.safetensors, and $run.seconds
{
    part=""
    ! $quick || part="--iterations 20"
    seconds "$run.log" build/train "$target" --seed "$seed" --out "$run" --force --threads "$THREADS" $part \
        > "$run.seconds"
    [ -s "$run.seconds" ] && return
    rm -f "$run.seconds"
    echo "$target, seed $seed: $(tail -n 1 "$run.log")" >&2
    return 1
}

measure() # of $target and $seed: $run.txt
{
    case $target in dw4 | lj13 | lj55) n=$particles ;; *) n=$points ;; esac
    echo "seconds $(cat "$run.seconds")" > "$run.part"
    also="--checkpoint $run"
    draw plain safetensors
    also=""
    case $target in
    funnel | manywell32) draw smc safetensors --smc 0.5; draw refined npy --refine 100 ;;
    dw4) draw refined safetensors --refine 200 ;;
    lj13) draw refined npy --refine 100 ;;
    esac
    mv "$run.part" "$run.txt"
}

for seed in $seeds; do
    for target in $targets; do
        run=$folder/$target-$seed
        [ -f "$run.seconds" ] || train || continue
        [ -f "$run.txt" ] || measure
        echo "$target, seed $seed: done" >&2
    done
done

# mean (least to most) over the runs of a target, "-" if there is no such number
over() # NAME
{
    awk -v name="$1" '
        $1 == name { sum += $2; if (!n++ || $2 < lo) lo = $2; if (n == 1 || $2 > hi) hi = $2 }
        END {
            if (!n) printf "-"
            else if (n == 1) printf "%.3g", sum
            else printf "%.3g (%.3g to %.3g)", sum / n, lo, hi
        }' $files
}

tvd() { case $target in dw4 | lj13 | lj55) echo tvd_e ;; *) echo tvd_e_range ;; esac; }

floor() # NAME: a metric and its floor
{
    printf '%s, %s' "$(over "$1")" "$(over "$1_floor" | cut -d ' ' -f 1)"
}

files_of() # TARGET
{
    files=""
    for seed in $seeds; do [ ! -f $folder/$1-$seed.txt ] || files="$files $folder/$1-$seed.txt"; done
    [ -n "$files" ]
}

echo "Preset fast, seeds $seeds: mean (least to most). Seconds of the processor, the final measuring of train"
echo "included. n = $points, particles $particles. Metrics stand before their floors; TVD-E of particles has"
echo "the fixed bins, else the range of the reference. SMC: sample --smc 0.5."
echo
echo "| target | training, s | ESS/N | k-hat | ELBO | log Z error | by SMC | forward | TVD-E | energy W2 |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for target in $targets; do
    files_of "$target" || continue
    echo "| $target x $(echo $files | wc -w | tr -d ' ') | $(over seconds) | $(over ess) | $(over khat)" \
        "| $(over elbo) | $(over log_z_error) | $(over smc.log_z_error) | $(over log_z_forward)" \
        "| $(floor "$(tvd)") | $(floor energy_w2) |"
done
echo
echo "| after sample --refine | TVD-E | energy W2 | outliers |"
echo "|---|---|---|---|"
for target in $targets; do
    files_of "$target" && grep -q '^refined' $files || continue
    echo "| $target | $(floor refined."$(tvd)") | $(floor refined.energy_w2) | $(floor refined.outliers) |"
done
