"""Writes tests/vectors/jpeg.h: two JPEG files as Pillow writes them, one in inverted CMYK, one that lies on its side
by EXIF, and what Pillow reads of the first row, the first column. Needs pillow and numpy:

    python3 tests/vectors/gen/jpeg.py > tests/vectors/jpeg.h
"""
import io

import numpy as np
from PIL import Image, ImageOps

print("/* Written by gen/jpeg.py. */")


def show(name, values):
    print(f"static const unsigned char {name}[] = {{")
    for i in range(0, len(values), 20):
        print("    " + " ".join(f"{v}," for v in values[i:i + 20]))
    print("};")


def write(name, pixels, mode, **more):
    f = io.BytesIO()
    Image.fromarray(pixels, mode).save(f, "JPEG", quality=95, optimize=True, **more)
    show(name, f.getvalue())
    return ImageOps.exif_transpose(Image.open(f)).convert("RGB")


# White, cyan, yellow and black, 8 columns each
cmyk = np.repeat(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255]]], np.uint8), 8, 1)
show("cmyk_row", np.asarray(write("cmyk_jpeg", np.repeat(cmyk, 8, 0), "CMYK"))[0].ravel())
# Dark on the left and bright on the right; upright this is above and below
grey = np.repeat(np.repeat(np.array([[30, 220]], np.uint8), 8, 1), 8, 0)
exif = Image.Exif()
exif[0x0112] = 6
show("turned_column", np.asarray(write("turned_jpeg", grey, "L", exif=exif))[:, 0].ravel())
