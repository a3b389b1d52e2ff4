# VGS beside the SDE samplers (DIS and PIS, log-variance loss) at equal processor time, over seeds: a table.
# sh bench/sde.sh [--seeds "0 1 2"] [--seconds S] [--table] [TARGET ...]
# Seconds of training: 20, of funnel and manywell32 40; weights are of 20 000 draws. What build/sde holds is
# not made again: a table that was broken off goes on, and new seeds can be added. --table: of what there is.
cd "$(dirname "$0")/.." || exit 1
: "${CC:=cc}" "${CFLAGS:=-std=c99 -O2}"
seeds="0 1 2" targets="" seconds="" folder=build/sde table=false
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) shift; seeds=$1 ;;
    --seconds) shift; seconds=$1 ;;
    --table) table=true ;;
    -*) echo "usage: sh bench/sde.sh [--seeds \"0 1 2\"] [--seconds S] [--table] [TARGET ...]"; exit 2 ;;
    *) targets="$targets $1" ;;
    esac
    shift
done
: "${targets:=gmm9 gmm25 dw4 funnel manywell32}"
mkdir -p $folder
$table || $CC $CFLAGS examples/train.c -o build/sde/train -lm || exit 1

seconds_of() # TARGET: of training
{
    case $1 in
    funnel | manywell32) echo "${seconds:-40}" ;;
    *) echo "${seconds:-20}" ;;
    esac
}

options() # SAMPLER
{
    case $1 in
    vgs) ;;
    *) echo --kernel policy --objective logvar --drift-energy 1 --reference "$1" ;;
    esac
}

# What train's summary says, as lines "name value". The true log Z of dw4 is none that train knows.
figures() # SUMMARY
{
    awk '
        function after(word, k,   i) {
            for (i = 1; i + k <= NF; ++i) if ($i == word) return $(i + k)
            return "-"
        }
        function is(name, value) { if (value ~ /[0-9]/) print name, value }
        / iterations, / { is("iterations", $3) }
        /^(ELBO|EUBO)/ { gsub(/[,()]/, " "); $0 = $0 }
        /^EUBO/ { is("forward", after("Z", 1)) }
        /^ELBO/ {
            is("gap", after("Z", 1) - $2)
            is("log_z", after("Z", 1))
            is("se", after("Z", 3))
            if (after("true:", 1) != "-") is("error", after("Z", 1) - after("true:", 1))
            is("ess", after("ESS/N", 1))
            is("khat", after("k-hat", 1))
        }
        $1 == "TVD-E" && $2 != "fixed" { is("tvd", $2); is("floor", $3) }' "$1"
}

for seed in $seeds; do
    for target in $targets; do
        for sampler in vgs dis pis; do
            run=$folder/$target-$sampler-$(seconds_of "$target")-$seed
            $table || [ -f "$run.txt" ] && continue
            minutes=$(seconds_of "$target" | awk '{ print $1 / 60 }')
            # shellcheck disable=SC2046
            if build/sde/train "$target" $(options $sampler) --minutes "$minutes" --cpu-time --draws 20000 \
                --threads 1 --seed "$seed" --out "$run" --force > "$run.out" 2> "$run.log"
            then figures "$run.out" > "$run.part" && mv "$run.part" "$run.txt"
            else echo "$target, $sampler, seed $seed: $(tail -n 1 "$run.log")" >&2
            fi
        done
    done
done

# mean (least to most) over the runs of a row, "-" if there is no such number
over() # NAME
{
    awk -v name="$1" '
        function text(v) { return sprintf(name ~ /^(log_z|forward|iterations)$/ ? "%.4g" : "%.3g", v) }
        $1 == name { sum += $2; if (!n++ || $2 < lo) lo = $2; if (n == 1 || $2 > hi) hi = $2 }
        END {
            if (!n) printf "-"
            else if (n == 1) printf "%s", text(sum)
            else printf "%s (%s to %s)", text(sum / n), text(lo), text(hi)
        }' $files
}
mean() { over "$1" | cut -d ' ' -f 1; }

echo "Mean (least to most) over seeds. Seconds of the processor of training, one thread."
echo
echo "| target, s | sampler | iterations | log Z error | its error bar | forward log Z | log Z - ELBO" \
    "| ESS/N | k-hat | TVD-E (floor) |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for target in $targets; do
    for sampler in vgs dis pis; do
        files=""
        for seed in $seeds; do
            run=$folder/$target-$sampler-$(seconds_of "$target")-$seed
            [ ! -f "$run.txt" ] || files="$files $run.txt"
        done
        [ -n "$files" ] || continue
        name=error note=""
        # shellcheck disable=SC2086
        grep -q '^error' $files || name=log_z note=" (log Z)"
        echo "| $target, $(seconds_of "$target") | $sampler x $(echo $files | wc -w | tr -d ' ') | $(mean iterations) | $(over $name)$note" \
            "| $(mean se) | $(over forward) | $(over gap) | $(over ess) | $(over khat)" \
            "| $(over tvd) ($(mean floor)) |"
    done
done
