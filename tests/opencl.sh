# vgs_cl.h: that its kernels are those of kernels/, that it compiles in C99 and C++11, its tests on what devices
# there are, and the programs. Without OpenCL they are skipped; with VGS_NEED_OPENCL=1 that is a failure.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
. tests/cl.inc

$CC -std=c99 -O1 kernels/embed.c -o "$work/embed" && "$work/embed" --check
ok "vgs_cl.h has the kernels of kernels/" $?
! awk 'length > 110 && !/^    "/ {print FILENAME ":" FNR; bad = 1} END {exit !bad}' vgs_cl.h
ok "no line over 110 columns outside of the kernels" $?
! grep -n -P '\t| $|[^\x00-\x7F]' vgs_cl.h kernels/*
ok "no tabs, trailing blanks or non-ASCII" $?

need_opencl
cat > "$work/one.c" <<'END'
#define VGS_STATIC
#define VGS_IMPLEMENTATION
#include "vgs.h"
#include "vgs_cl.h"
#include "vgs_cl.h"
int main(void)
{
    vgs_cl_config c;
    vgs_error err;
    memset(&c, 0, sizeof c);
    c.device = "no such device";
    return vgs_cl_create(&c, &err) != NULL || err.code != VGS_E_DEVICE;
}
END
cp "$work/one.c" "$work/one.cc"
$CC $CFLAGS -Werror -O0 -I. "$work/one.c" -o "$work/a" -lOpenCL -lm && "$work/a"; ok "static, twice, c99" $?
$CC -std=c99 -DVGS_NO_STDIO -O0 -I. "$work/one.c" -o "$work/a" -lOpenCL -lm && "$work/a"; ok "VGS_NO_STDIO" $?
if command -v "$CXX" > "$work/where"; then
    $CXX -std=c++11 -Wall -Wextra -O0 -I. "$work/one.cc" -o "$work/a" -lOpenCL && "$work/a"; ok "c++11" $?
else
    skip "no C++ compiler ($CXX)"
fi
every_cxx "$work/one.cc"
OCL_ICD_VENDORS="$work/none" "$work/a"; ok "no platform: an error, not a crash" $?

for t in cl cl_ops cl_nets cl_faults; do
    build test_$t $t
    run $t build/test_$t
done
# Products of CLBlast: where it is wrong or fails, in the choice, in every op, in training.
printf '#include <clblast_c.h>\nint main(void) { return (int)CLBlastClearCache(); }\n' > "$work/have.c"
if $CC -DCL_TARGET_OPENCL_VERSION=120 "$work/have.c" -o "$work/have" -lclblast -lOpenCL 2> "$work/log"; then
    $CC $CFLAGS -Werror -O0 -DVGS_CL_CLBLAST -I. "$work/one.c" -o "$work/a" -lclblast -lOpenCL -lm && "$work/a"
    ok "c99 with CLBlast" $?
    build test_cl_clblast cl -DVGS_CL_CLBLAST -lclblast
    build test_cl_ops_clblast cl_ops -DVGS_CL_CLBLAST -lclblast
    run "cl with CLBlast" build/test_cl_clblast products choice weak_clblast bad_input
    export VGS_TEST_PRODUCTS=clblast
    run "cl_ops by CLBlast" build/test_cl_ops_clblast
    run "training by CLBlast" build/test_cl_clblast one_step
    unset VGS_TEST_PRODUCTS
elif [ -n "$VGS_NEED_OPENCL" ]; then ok "CLBlast (libclblast-dev)" 1
else skip "CLBlast is not installed: its products are not tested"; fi
# The programs: on the device, from there on the processor, from there on the device again.
$CC -O1 -DVGS_STATIC -DVGS_USE_CL examples/train.c -o build/train_cl -lOpenCL -lm &&
    $CC -O0 -DVGS_STATIC -DVGS_USE_CL examples/sample.c -o build/sample_cl -lOpenCL -lm &&
    $CC -O0 -DVGS_STATIC -DVGS_USE_CL examples/reference.c -o build/reference_cl -lOpenCL -lm
ok "train, sample and reference with VGS_USE_CL" $?
small="--hidden 8 --time-dim 4 --steps 4 --batch 16 --threads 1"
build/train_cl --list-devices > "$work/log" 2>&1 && grep -q '^0: ' "$work/log"
if [ $? -eq 0 ]; then
    build/train_cl dw4 --out "$work/run" --iterations 3 $small --device auto --profile \
        2> "$work/err" > "$work/log"
    ok "train --device auto" $?
    grep -q 'an iteration: .* launches' "$work/err"; ok "train --profile" $?
    build/train_cl dw4 --out "$work/run" --iterations 6 --resume --threads 1 2> "$work/err" > "$work/log"
    ok "a run of the device goes on on the processor" $?
    build/sample_cl "$work/run" -n 100 -o "$work/x.npy" --device 0 2> "$work/err" && [ -s "$work/x.npy" ]
    ok "sample on the device" $?
    for d in cpu auto; do                        # two iterations, too few for rounding to grow
        build/reference_cl dw4 -n 16 -o "$work/x.npy" --method hmc --burn-in 1 --thin 1 --device $d --json \
            2> "$work/err" | sed 's/.*"energy_mean": \([^,]*\),.*/\1/'
    done > "$work/log"
    awk '{e[NR] = $1} END {d = (e[1] - e[2]) / e[1]; exit !(NR == 2 && d * d < 1e-8)}' "$work/log"
    ok "reference takes its energies from the device" $?
    build/train_cl dw4 --out "$work/none" --device nothing 2> "$work/err" > "$work/log"
    [ $? = 1 ] &&
        grep -q nothing "$work/err"; ok "a device that is not there is named" $?
fi
finish
