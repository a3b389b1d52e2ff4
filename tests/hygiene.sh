# What the header must not do to its user: leak names or macros, print, abort, keep state; and its form.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
printf '#define VGS_IMPLEMENTATION\n#include "vgs.h"\n' > "$work/i.c"
printf '#include "vgs.h"\n' > "$work/d.c"
printf '#define VGS_STATIC\n#define VGS_IMPLEMENTATION\n#include "vgs.h"\n' > "$work/s.c"
: > "$work/none.c"

$CC -std=c99 -I. -c "$work/i.c" -o "$work/i.o" && ! nm -g --defined-only "$work/i.o" | awk '{print $3}' | grep -v '^vgs_'
ok "only vgs_ symbols are exported" $?
$CC -std=c99 -I. -c "$work/s.c" -o "$work/s.o" && ! nm -g --defined-only "$work/s.o" | grep .
ok "VGS_STATIC exports nothing" $?
# (not position independent: tables of pointers are then constants of their own)
$CC -std=c99 -I. -fno-pic -fno-pie -c "$work/i.c" -o "$work/n.o" && ! nm "$work/n.o" | awk '$2 ~ /^[bBdDcC]$/' | grep .
ok "no data that can change" $?
! nm -u "$work/i.o" | awk '{print $2}' | grep -E '^(exit|abort|printf|puts|putchar|perror|rand|srand)$'
ok "the library does not print, exit or draw from rand" $?

# macros after the header, less those of the system headers it includes
printf '#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n' > "$work/sys.c"
$CC -std=c99 -I. -dM -E "$work/sys.c" | awk '{print $2}' | sort > "$work/sys"
$CC -std=c99 -I. -dM -E "$work/d.c" | awk '{print $2}' | sort > "$work/after"
! comm -13 "$work/sys" "$work/after" | grep -v '^VGS_'
ok "the interface defines only VGS_ macros" $?
# of the implementation's own, those that public macros, vgs_cl.h or a test need (VGS__MIXES: the list of ops)
! $CC -std=c99 -I. -dM -E "$work/i.c" | awk '{print $2}' | sed 's/(.*//' | grep '^VGS__' |
    grep -vxE 'VGS__(MIXES|HOT|INLINE|AVX2|DEF|ACTS|X86)'
ok "the implementation leaves no macro of its own behind" $?

! grep -n -P '\t| $|[^\x00-\x7F]' vgs.h examples/*.c examples/*.h tests/*.c tests/*.h bench/*.c
ok "no tabs, trailing blanks or non-ASCII" $?
! awk 'length > 110 {print FILENAME ":" FNR; bad = 1} END {exit !bad}' vgs.h vgs_cl.h */*.c */*.h
ok "no line over 110 columns" $?

! grep -n 'omp critical' vgs.h
ok "no lock that all backends of a process share (omp critical)" $?

# in each half of vgs.h the tags, in order and each once, are those of the list of contents
sed -n '/^   CONTENTS/,/^$/p' vgs.h | grep -o 'Implementation\|>>[a-z]*' > "$work/contents"
sed '1,/^#ifndef VGS_H/d' vgs.h | grep -o 'end of interface\|^/\* ==== >>[a-z]*' |
    sed 's/end of interface/Implementation/;s/.*==== //' > "$work/tags"
diff "$work/contents" "$work/tags"
ok "the list of contents is the tags of both halves, each once" $?

# the program of the top comment is examples/ring.c
sed -n '/A COMPLETE PROGRAM/,/^   WHAT IT IS/p' vgs.h | sed '1d;$d' | sed 's/^       //' | sed '/^$/d' > "$work/top"
sed '1,2d;s/"..\/vgs.h"/"vgs.h"/' examples/ring.c | sed '/^$/d' > "$work/ring"
cmp "$work/top" "$work/ring"
ok "the top comment's program is examples/ring.c" $?

! sh bench/house.sh --unshown | grep .
ok "every public function is shown in code of an example, a bench or the README" $?
finish
