# The kernels of vgs_cl.h in groups of many work-items, as on a GPU, and under oclgrind, which looks for races,
# accesses out of bounds and misuse of the interface. Without OpenCL or oclgrind they are skipped.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
. tests/cl.inc
need_opencl
for t in cl cl_ops cl_nets; do build test_groups_$t $t; done

# PoCL optimises the barriers of such groups for minutes, so it is told not to.
for n in 1 32 64 256; do
    export VGS_TEST_GROUP=$n POCL_EXTRA_BUILD_FLAGS=-cl-opt-disable
    run "cl_ops, groups of $n" build/test_groups_cl_ops
    run "cl_nets, groups of $n" build/test_groups_cl_nets
    run "cl, groups of $n" build/test_groups_cl random targets one_step
done
unset VGS_TEST_GROUP POCL_EXTRA_BUILD_FLAGS

if command -v oclgrind > "$work/where"; then
    export VGS_TEST_SMALL=1 VGS_TEST_PRODUCTS=tall   # measuring which is faster would take hours here
    oclgrind --check-api --data-races --log "$work/oclgrind" build/test_groups_cl_ops every_op \
        > "$work/log" 2>&1
    ok "oclgrind: the ops" $?
    [ ! -s "$work/oclgrind" ] || head -n 20 "$work/oclgrind"
    [ ! -s "$work/oclgrind" ]; ok "oclgrind reports nothing" $?
    oclgrind --data-races --log "$work/oclgrind" build/test_groups_cl targets > "$work/log" 2>&1
    [ $? -eq 0 ] && [ ! -s "$work/oclgrind" ]; ok "oclgrind: the energies" $?
    export VGS_TEST_PRODUCTS=tile VGS_TEST_GROUP=32
    oclgrind --data-races --log "$work/oclgrind" build/test_groups_cl_ops every_op > "$work/log" 2>&1
    [ $? -eq 0 ] && [ ! -s "$work/oclgrind" ]; ok "oclgrind: the ops in groups of 32" $?
    [ ! -s "$work/oclgrind" ] || head -n 20 "$work/oclgrind"
else
    skip "oclgrind is not installed"
fi
finish
