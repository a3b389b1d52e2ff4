# What contrastive divergence adds to the detector's energy over its autoencoder alone, at equal processor time,
# on two sets: a table of means over seeds, +- the largest deviation from them.
#     sh bench/detect_cd.sh TILES WEIGHTS.safetensors [--seeds "1 2 3"] [--seconds 30] [--KEY VALUE ...]
# TILES: a folder in MVTec's layout. The other set, solar cells of elpv-dataset (mono and poly as two classes, 70 %
# of the good ones to train), is downloaded by pip; WEIGHTS: of Lite0. What build/detect_cd holds is not made again.
cd "$(dirname "$0")/.." || exit 1
: "${CC:=cc}" "${CFLAGS:=-std=c99 -O2}" "${PYTHON:=python3}"
[ $# -ge 2 ] || { sed -n '1,6s/^# //p' "$0"; exit 2; }
tiles=$1 weights=$2 seeds="1 2 3" seconds=30 folder=build/detect_cd
shift 2
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) seeds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    *) break ;;
    esac
done
mkdir -p $folder
$CC $CFLAGS bench/detect_cd.c -o build/bench_detect_cd -lm || exit 1

if [ ! -d $folder/cells ]; then
    $PYTHON -m pip download -q --no-deps -d $folder elpv-dataset==1.0.0.post1 || exit 1
    $PYTHON - $folder << 'PY' || exit 1
import glob, io, os, random, sys, zipfile
folder = sys.argv[1]
z = zipfile.ZipFile(glob.glob(folder + "/elpv_dataset*.whl")[0])
data = next(n for n in z.namelist() if n.endswith("labels.csv"))[:-len("labels.csv")]
kinds = {"mono": ([], []), "poly": ([], [])}
for line in io.TextIOWrapper(z.open(data + "labels.csv")):
    name, p, kind = line.split()
    if float(p) in (0, 1):                       # those between are left out
        kinds[kind][int(float(p))].append(name)
for kind, (good, bad) in kinds.items():
    random.Random(0).shuffle(good)
    n = round(0.7 * len(good))
    for part, names in [("train/good", good[:n]), ("test/good", good[n:]), ("test/defect", bad)]:
        os.makedirs(f"{folder}/part/{kind}/{part}")
        for name in names:
            with open(f"{folder}/part/{kind}/{part}/{os.path.basename(name)}", "wb") as f:
                f.write(z.read(data + name))
os.rename(folder + "/part", folder + "/cells")
PY
fi

for set in tiles cells; do
    images=$tiles
    [ $set = tiles ] || images=$folder/cells
    how=$(echo "$images $(cksum < "$weights") $seconds $*" | cksum | cut -d ' ' -f 1)
    for seed in $seeds; do
        log=$folder/${set}_${how}_$seed.txt
        [ -s "$log" ] && continue
        build/bench_detect_cd "$images" "$weights" "$folder/$set.$(cksum < "$weights" | cut -d ' ' -f 1).cache" --seconds "$seconds" --fit-steps 300 --seed "$seed" "$@" \
            > "$log.part" && mv "$log.part" "$log" || exit 1
    done
    echo
    echo "| $set | seconds | steps of reconstruction, of E | g | e of data, negatives | image AUROC | AUPRO(0.3) |"
    echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for seed in $seeds; do cat "$folder/${set}_${how}_$seed.txt"; done | awk -F '\t' '
        function far(x, m) { x -= m; return x < 0 ? -x : x }
        !($1 in n) { order[++kinds] = $1 }
        { k = ++n[$1]; s[$1] += $3; fit[$1] += $4; steps[$1] += $5; g[$1] += $6; plus[$1] += $7; minus[$1] += $9
          if ($7 ~ /nan/) untold[$1] = 1
          if ($9 ~ /nan/) alone[$1] = 1
          a[$1] += a_[$1, k] = $12
          if ($13 ~ /nan/) none[$1] = 1; else p[$1] += p_[$1, k] = $13 }
        END { for (i = 1; i <= kinds; ++i) { v = order[i]; m = n[v]; da = dp = 0
                  for (k = 1; k <= m; ++k) { if (far(a_[v, k], a[v] / m) > da) da = far(a_[v, k], a[v] / m)
                                             if (far(p_[v, k], p[v] / m) > dp) dp = far(p_[v, k], p[v] / m) }
                  printf "| %s | %.0f | %.0f, %.0f | %.2f | %s | %.3f +- %.3f | %s |\n", v, s[v] / m, fit[v] / m,
                         steps[v] / m, g[v] / m,
                         v in untold ? "" : sprintf("%.2f", plus[v] / m) (v in alone ? "" : sprintf(", %.2f", minus[v] / m)),
                         a[v] / m, da,
                         v in none ? "" : sprintf("%.3f +- %.3f", p[v] / m, dp) } }'
done
