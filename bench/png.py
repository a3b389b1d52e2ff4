"""PNG files of grey images, for the benches that draw some; no package is needed for that."""
import struct
import zlib


def write(path, grey):
    """grey: [height, width], 0 (black) to 255."""
    rows = b"".join(b"\0" + row.tobytes() for row in grey.astype("u1"))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) +
                chunk(b"IEND", b""))
