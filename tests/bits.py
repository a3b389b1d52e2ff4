"""Compares files of numbers, for tests/bits.sh: bits.py OLD NEW [OLD NEW ...]

.safetensors and .npy: tensor by tensor, without metadata. .txt: line by line. Anything else: the JSON object of
the last line, its values as they are printed, without times and the sentence on weights. Prints the first tensor
that differs and its largest difference. Status 1 if one differs or if NEW has lost one; one that has only
another name, or is new, is printed too."""
import array
import ast
import json
import struct
import sys

CODES = {"F32": "f", "F64": "d", "I32": "i", "I64": "q", "U32": "I", "U64": "Q", "<f4": "f", "<f8": "d"}


def read(path):
    """{name: (type, shape, bytes)}"""
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".npy"):
        start = 10 + struct.unpack("<H", data[8:10])[0]
        head = ast.literal_eval(data[10:start].decode())
        return {"x": (head["descr"], head["shape"], data[start:])}
    if path.endswith(".safetensors"):
        start = 8 + struct.unpack("<Q", data[:8])[0]
        head = json.loads(data[8:start])
        head.pop("__metadata__", None)
        return {name: (t["dtype"], t["shape"], data[start + t["data_offsets"][0]:start + t["data_offsets"][1]])
                for name, t in head.items()}
    if path.endswith(".txt"):
        return {str(i): ("text", 1, line) for i, line in enumerate(data.splitlines())}
    values = json.loads(data.splitlines()[-1], parse_float=str, parse_int=str)
    return {name: ("text", 1, str(value).encode()) for name, value in values.items()
            if not name.startswith(("seconds", "weights_say"))}


def difference(old, new):
    if old[:2] != new[:2]:
        return f"{old[0]} {old[1]} is now {new[0]} {new[1]}"
    if old[0] == "text":
        return f"{old[2].decode()} is now {new[2].decode()}"
    x, y = array.array(CODES[old[0]], old[2]), array.array(CODES[new[0]], new[2])
    n = x.itemsize                                # the bits of -0 and of a NaN count, too
    places = [i for i in range(len(x)) if old[2][n * i:n * i + n] != new[2][n * i:n * i + n]]
    gaps = [abs(x[i] - y[i]) for i in places]
    largest = max(float("inf") if gap != gap else gap for gap in gaps)
    return f"{len(places)} of {len(x)} numbers, by {largest:.3g} at most"


def compare(old, new):
    """What differs, and what else is to be said."""
    wrong, said = [], []
    added = [name for name in new if name not in old]
    for name in old:
        twin = name if name in new else next((other for other in added if new[other] == old[name]), None)
        if twin is None:
            wrong.append(f"{name} is lost")
        elif old[name] != new[twin]:
            wrong.append(name if wrong else f"{name}: {difference(old[name], new[twin])}")
        elif twin != name:
            added.remove(twin)
            said.append(f"{name} is now {twin}")
    if len(wrong) > 1:
        wrong[1:] = [f"{len(wrong)} of {len(old)} in all"]
    return wrong if old else ["nothing in it"], said + [f"{name} is new" for name in added]


def main(paths):
    said, count = [], 0
    for first, second in zip(paths[::2], paths[1::2]):
        file = second.split("/")[-1]
        try:
            old = read(first)
            wrong, more = compare(old, read(second))
        except (OSError, ValueError, LookupError, struct.error) as error:
            wrong, more = [f"cannot be compared: {error!r}"], []
        if wrong:
            print(f"{file}, {', '.join(wrong + more)}")
            return 1
        count += len(old)
        said += more
    print(", ".join([f"{count} compared"] + said))
    return 0


sys.exit(main(sys.argv[1:]))
