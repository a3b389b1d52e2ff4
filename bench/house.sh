# How large the header is and how much of it is shown: a Markdown table for before and after a change.
#   sh bench/house.sh [TREE]       this tree, or the one in that folder. CC=gcc, for seconds and bytes to compare
#   sh bench/house.sh --unshown    public functions that occur in no code of an example, a bench or the README
names=false
[ "${1:-}" != --unshown ] || { names=true; shift; }
cd "${1:-$(dirname "$0")/..}" || exit 1
: "${CC:=gcc}"
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
row() { printf '| %-50s | %7s |\n' "$1" "$2"; }

# as the compiler sees it: what macros declare counts, comments do not
printf '#include "vgs.h"\n' | $CC -std=c99 -I. -E -P - | tr '\n' ' ' > "$work/header"
grep -o 'extern [^;({]*(' "$work/header" | grep -o 'vgs_[a-z0-9_]* *(' | tr -d ' (' | sort -u > "$work/public"
[ -s "$work/public" ] || { echo "vgs.h: no public function was found" >&2; exit 1; }
# code alone: what a README's text, a comment or a string names is not shown
code()
{
    sed 's/"[^"]*"//g' "$@" | awk '{
        for (out = ""; $0 != ""; ) {
            if (inside && !(i = index($0, "*/"))) break
            if (inside) { $0 = substr($0, i + 2); inside = 0; continue }
            i = index($0, "/*"); j = index($0, "//")
            if (j && (!i || j < i)) { $0 = substr($0, 1, j - 1); i = 0 }
            out = out (i ? substr($0, 1, i - 1) : $0)
            $0 = i ? substr($0, i + 2) : ""
            inside = i > 0
        }
        print out
    }'
}
{ sed -n '/^```/,/^```/p' README.md; cat examples/*.[ch] bench/*.[ch]; } | code |
    grep -o 'vgs_[a-z0-9_]*' | sort -u > "$work/shown"
comm -23 "$work/public" "$work/shown" > "$work/unshown"
! $names || { cat "$work/unshown"; exit 0; }

fields() # STRUCT...: members; a pointer to a function is one
{
    for s in "$@"; do
        sed 's/([^()]*) *([^()]*)/callback/g' "$work/header" | grep -o "typedef struct $s {[^}]*}" | sed 's/.*{//' |
            tr -cd ';,' | wc -c
    done | awk '{ n += $1 } END { print n }'
}

row "vgs.h at $(git describe --always --dirty)" ""
row "---" "---:"
row "lines" "$(wc -l < vgs.h)"
row "lines of the interface" "$(awk '/^\/\* ==== >>/ && !at { at = NR } /end of interface/ { print NR - at }' vgs.h)"
row "line of vgs_sampler_create's declaration" "$(grep -n '^VGS_API.*vgs_sampler_create' vgs.h | cut -d : -f 1)"

# the implementation alone; of the processor, the least of three
printf '#define VGS_IMPLEMENTATION\n#include "vgs.h"\n' > "$work/i.c"
for try in 1 2 3; do ( $CC -std=c99 -O2 -I. -c "$work/i.c" -o "$work/i.o"; times ) | tail -n 1; done |
    tr 'ms' '  ' | awk '{ print 60 * ($1 + $3) + $2 + $4 }' | sort -n > "$work/seconds"
row "seconds to compile, $CC -O2" "$(printf '%.1f' "$(head -n 1 "$work/seconds")")"
row "bytes of the object: text of size, $CC -O2" "$(size "$work/i.o" | awk 'NR == 2 { print $1 }')"
row "public functions" "$(wc -l < "$work/public")"
row "of them in no code of examples, bench or README" "$(wc -l < "$work/unshown")"
row "fields of vgs_config, vgs_net_config, vgs_energy" "$(fields vgs_config vgs_net_config vgs_energy)"
