# Runs every benchmark and writes bench/RESULTS.md; its part from "## Notes" on is written by hand and stays.
# Called by make bench. sh bench/run.sh [--quick] [--cpu-time]       PYTHON names a python that has torch.
cd "$(dirname "$0")/.." || exit 1
: "${CC:=cc}" "${CFLAGS:=-std=c99 -O2}" "${OPENMP:=}" "${PYTHON:=python3}"
command="make bench"
quick=false clock=""
for a in "$@"; do
    case $a in
    --quick) quick=true ;;
    --cpu-time) clock=--cpu-time ;;
    *) echo "usage: sh bench/run.sh [--quick] [--cpu-time]"; exit 2 ;;
    esac
done
[ $# -eq 0 ] || command="$command BENCH='$*'"
mkdir -p build
for b in gemm step ops energy rng mcmc; do
    $CC $CFLAGS $OPENMP bench/$b.c -o build/bench_$b -lm -ldl || exit 1
done
opencl=true                                      # with CLBlast, without it, or not at all
$CC $CFLAGS -DVGS_CL_CLBLAST bench/cl.c -o build/bench_cl -lclblast -lOpenCL -lm 2> build/bench_cl.log ||
    $CC $CFLAGS bench/cl.c -o build/bench_cl -lOpenCL -lm 2> build/bench_cl.log || opencl=false
! $opencl || $CC $CFLAGS -DVGS_USE_CL bench/ops.c -o build/bench_ops_cl -lOpenCL -lm || exit 1

table() # COMMAND...: what it prints, under its command line
{
    printf '\n`%s`\n\n```\n' "$(echo "$*" | sed "s|$PYTHON|python3|")"
    "$@" 2>&1 || echo "(ended with status $?)"
    printf '```\n'
}

markdown() # COMMAND...: the same for what prints Markdown; what it says meanwhile goes to a log
{
    printf '\n`%s`\n\n' "$*"
    "$@" 2> build/bench_mcmc.log || echo "(ended with status $?: $(tail -n 1 build/bench_mcmc.log))"
}

processor() { sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | sort | uniq -c | sed 's/^ *\([0-9]*\) */\1 x /'; }

torch=$("$PYTHON" -c 'import torch; print(torch.__version__)' 2> build/bench_torch.log)
against=""
[ -n "$torch" ] && against="--torch $PYTHON"
if $quick; then trials=5 repeat=3 patience=20 part=--quick; else trials=9 repeat=5 patience=240 part=""; fi
mkdir -p build/runs                              # trainings of bench_mcmc; what is there is not trained again

report()
{
    echo "# Results"
    echo
    echo "Written by \`$command\`, $(date -u +%Y-%m-%d), in the time given at the end."
    echo
    echo "- Processor: $(processor); $(uname -sm)"
    echo "- Compiler: $($CC --version | head -n 1), \`$CFLAGS $OPENMP\`" | sed 's/-W[a-z-]*  *//g'
    if [ -n "$clock" ]; then
        echo "- The machine was shared: seconds are those of the processor, over threads. That tells what work costs,"
        echo "  not what threads lose by waiting for each other."
    fi
    if [ -n "$torch" ]; then echo "- PyTorch $torch"
    else echo "- PyTorch was not found (\`PYTHON=... make bench\`): its columns are missing"; fi
    printf '\n## Matrix products\n'
    table build/bench_gemm --trials $trials $clock
    table build/bench_gemm --trials $trials $clock --threads 1 --isa avx2 --openblas Haswell
    table build/bench_gemm --trials $trials $clock --threads 1 --shapes small
    printf '\n## A training iteration and a draw of 2000 rows\n'
    table build/bench_step --repeat $repeat --patience $patience --ops $clock $against
    table build/bench_step gmm9 dw4 lj13 --preset fast --repeat $repeat --ops $clock
    printf '\n## Every op by itself\n'
    table build/bench_ops $clock
    printf '\n## Energies and random numbers\n'
    table build/bench_energy
    table build/bench_rng
    printf '\n## Against classical samplers\n'
    markdown build/bench_mcmc --runs build/runs --html build/mcmc.html $part $clock
    if $opencl; then
        printf '\n## Products on an OpenCL device\n'
        table build/bench_cl
        table build/bench_ops_cl --device auto
    fi
}

start=$(date +%s)
report > build/results.md
echo "
In all $(($(date +%s) - start)) seconds.
" >> build/results.md
[ ! -f bench/RESULTS.md ] || sed -n '/^## Notes/,$p' bench/RESULTS.md >> build/results.md
mv build/results.md bench/RESULTS.md
cat bench/RESULTS.md
