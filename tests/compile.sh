# The header in other settings: C++ from 11 to 23, C11, gnu17, two units, static, without stdio; and the
# README's programs.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
cat > "$work/main.c" <<'END'
#include "vgs.h"
#ifdef __cplusplus
extern "C"
#endif
int other(void);
int main(void)
{
    vgs_rng r = { 1, 0, 0 };
    vgs_error err;
    vgs_backend *b = vgs_cpu_create(NULL, &err);
    int bad = !b || vgs_rng_u64(&r) == 0 || other();
    vgs_cpu_free(b);
    return bad;
}
END
cat > "$work/other.c" <<'END'
#define VGS_IMPLEMENTATION
#include "vgs.h"
#ifdef __cplusplus
extern "C"
#endif
int other(void);
int other(void) { return vgs_cpu_isa() == VGS_ISA_AUTO; }
END
cp "$work/main.c" "$work/main.cc"; cp "$work/other.c" "$work/other.cc"
cat > "$work/one.c" <<'END'
#define VGS_STATIC
#define VGS_IMPLEMENTATION
#include "vgs.h"
#include "vgs.h"
int main(void) { return vgs_field_name(0) == NULL; }
END
cat > "$work/kit.c" <<'END'
#define VGS_IMPLEMENTATION
#include "vgs.h"
#include "examples/targets.h"
#include "examples/targets.h"
int main(void) { return target_find("gmm9") == NULL; }
END
cp "$work/kit.c" "$work/kit.cc"
try() { name=$1; shift; "$@" -I. && "$work/a"; ok "$name" $?; }

try "two units, c99"     $CC -std=c99 -Wall -Wextra -Werror "$work/main.c" "$work/other.c" -o "$work/a" -lm
try "targets.h"          $CC -std=c99 -Wall -Wextra -Werror "$work/kit.c" -o "$work/a" -lm
if command -v "$CXX" > "$work/where"; then
    try "two units, C++11" "$CXX" -std=c++11 -Wall -Wextra -Werror "$work/main.cc" "$work/other.cc" -o "$work/a"
    try "targets.h, C++11" "$CXX" -std=c++11 -Wall -Wextra -Werror "$work/kit.cc" -o "$work/a"
else
    skip "no C++ compiler ($CXX)"
fi
every_cxx "$work/other.cc"
end_of_part basics
try "two units, c11"     $CC -std=c11 "$work/main.c" "$work/other.c" -o "$work/a" -lm
try "two units, gnu17"   $CC -std=gnu17 -O3 "$work/main.c" "$work/other.c" -o "$work/a" -lm
try "static, twice"      $CC -std=c99 -Wall -Wextra -Werror "$work/one.c" -o "$work/a" -lm
try "VGS_PORTABLE"       $CC -std=c99 -Wall -Wextra -Werror -DVGS_PORTABLE "$work/one.c" -o "$work/a" -lm
try "VGS_NO_STDIO"       $CC -std=c99 -Wall -Wextra -Werror -DVGS_NO_STDIO "$work/one.c" -o "$work/a" -lm
$CC -std=c99 -ffast-math -I. -c "$work/other.c" -o "$work/f.o" 2> "$work/log"
[ $? -ne 0 ] && grep -q 'ffast-math' "$work/log"
ok "-ffast-math is refused" $?

# more precision than float: exp, sine and normals must be right there, too
printf '#include <float.h>\nint main(void) { return !(FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2); }\n' > "$work/x87.c"
if $CC -mfpmath=387 "$work/x87.c" -o "$work/a" 2> "$work/log" && "$work/a"; then
    try "rng with x87" $CC -O2 -mfpmath=387 -DVGS_PORTABLE -DVGS_STATIC tests/rng.c -o "$work/a" -lm
else
    skip "$CC -mfpmath=387 does not work"
fi

# every C block of the README is a program that compiles and runs, or lines of an example
$CC -std=c99 -O1 -I. -c "$work/other.c" -o "$work/other.o"    # once for all, by an optimiser: one trains
awk -v dir="$work" '/^```c$/ {n++; on = 1; next} /^```$/ {on = 0} on {print > (dir "/readme" n ".c")}' README.md
sed 's/^ *//' examples/*.c > "$work/lines"
for f in "$work"/readme*.c; do
    if grep -q '^int main' "$f"; then
        $CC -std=c99 -DVGS_IMPLEMENTED -I. "$f" "$work/other.o" -o "$work/a" -lm && (cd "$work" && OMP_NUM_THREADS=1 ./a > out 2> err)
    else ! sed 's,  *//.*,,;s/^ *//;/^$/d;/^\.\.\.$/d' "$f" | grep -v -x -F -f "$work/lines"; fi
    ok "README block $(basename "$f")" $?
done
finish
