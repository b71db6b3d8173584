#!/usr/bin/env python3
"""Writes the first inputs of the fuzz targets gguf and protocol into corpus/ beside this file.

Whole, small and of every kind; what the fuzzer finds from there is not kept unless it broke something. No packages
needed.
"""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


def save(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


# GGUF ------------------------------------------------------------------------------------------

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def kv(key, kind, value):
    if kind == 8:
        return text(key) + struct.pack("<I", 8) + text(value)
    return text(key) + struct.pack("<I" + SCALARS[kind], kind, value)


def array(key, kind, values):
    items = b"".join(text(v) if kind == 8 else struct.pack("<" + SCALARS[kind], v) for v in values)
    return text(key) + struct.pack("<IIQ", 9, kind, len(values)) + items


def tensor(name, dims, kind, offset):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(entries, tensors=(), data=b"", version=3, alignment=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join([*entries, *tensors])
    return head + bytes(-len(head) % alignment) + data


def gguf_inputs():
    scalars = [kv(f"k{kind}", kind, 1) for kind in SCALARS]
    arrays = [array(f"a{kind}", kind, [1, 0]) for kind in SCALARS]
    save("gguf", "scalars", gguf(scalars))
    save("gguf", "arrays", gguf(arrays + [array("words", 8, ["one", "", "three"])]))
    blocks = {0: 4, 1: 2, 2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 12: 144, 13: 176, 14: 210, 30: 2}
    sizes = {kind: 1 if kind in (0, 1, 30) else 256 if kind in (12, 13, 14) else 32 for kind in blocks}
    tensors = [tensor(f"t{kind}", [sizes[kind]], kind, 256 * i) for i, kind in enumerate(blocks)]
    save("gguf", "types", gguf([kv("general.architecture", 8, "qwen3")], tensors, bytes(256 * len(blocks))))
    save("gguf", "shapes", gguf([], [tensor("m", [4, 3, 2, 2], 1, 0), tensor("v", [3], 0, 96)], bytes(128), version=2))
    save("gguf", "alignment", gguf([kv("general.alignment", 4, 64)], [tensor("x", [2], 0, 64)], bytes(128), alignment=64))
    save("gguf", "unsupported", gguf([], [tensor("x", [256], 16, 0)], bytes(128)))
    save("gguf", "nested", gguf([text("n") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 0, 1) + b"x"]))
    save("gguf", "twice", gguf([kv("k", 4, 1), kv("k", 4, 2)]))
    save("gguf", "many", gguf([kv("k", 4, 1)])[:8] + struct.pack("<QQ", 1 << 60, 1 << 60) + bytes(64))
    save("gguf", "big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0))


# Protocol --------------------------------------------------------------------------------------

def frame(kind, payload, request=1):
    return struct.pack("=IIQ", len(payload), kind, request) + payload


def field(s):
    return struct.pack("=I", 0xFFFFFFFF) if s is None else struct.pack("=I", len(s)) + s


def tokens(*ids):
    return struct.pack(f"=I{len(ids)}i", len(ids), *ids)


def strings(items):
    return struct.pack("=I", len(items)) + field(b"".join(field(s) for s in items))


def request(kind, stops, ids=(), labels=(), turns=(), schema=None, task=None):
    return (struct.pack("=IIIiddiQ", kind, 2, 15, 64, 0.7, 0.8, 20, 42) + field(b"prompt") + field(None)
            + strings(stops) + tokens(*ids) + struct.pack("=II", 100, 10) + strings(labels)
            + strings(turns) + field(schema) + field(task) + struct.pack("=QIiddQd", 99, 1000, 256, 0.5, 0.25, 7, 0.9))


def protocol_inputs():
    hello = frame(1, struct.pack("=IiII", 5, 4711, 10, 5), 0)
    save("protocol", "session", hello + frame(2, request(1, [b"\n", b"END"])) + frame(3, b"") + frame(4, b""))
    save("protocol", "detokenize", frame(2, request(6, [], (1, 2, -1))))
    save("protocol", "classify", frame(2, request(7, [], (), [b"billing", b"spam", b""], [b"Refund", b"billing"], None, b"triage")))
    save("protocol", "extract", frame(2, request(1, [], schema=b'{"type": "integer"}')))
    usage = struct.pack("=4I3id", 10, 5, 1, 2, 5, 4, 3, 1.5)
    save("protocol", "usage", frame(129, usage + field(b"triage") ) + frame(129, usage + field(None)))
    shadow = struct.pack("=QI", 7, 1)
    save("protocol", "shadow", frame(130, struct.pack("=I", 5) + field(b"triage") + shadow)
         + frame(130, struct.pack("=I", 5) + field(None) + shadow))
    result = struct.pack("=IIiiidddd", 2, 1, 5, 0, 7, 0.5, float("nan"), 1.0, 2.0)
    result += field(b"asked for") + field(b"value") + field(None) + field(b"abc") + tokens(1, 2)
    result += struct.pack("=II2d", 1, 2, 0.25, 0.75) + struct.pack("=I2f", 2, 0.6, 0.8)
    result += struct.pack("=iI3d", 17, 1, 0.5, 2.5, 0.0625)
    save("protocol", "result", frame(64, b"chunk") + frame(65, result))
    save("protocol", "error", frame(66, b"57014" + field(b"canceled") + field(None) + field(b"Hint.")
                                      + struct.pack("=I3id", 2, 7, 5, 3, 1.5)))
    rows = struct.pack("=QiIIIIIiiiiiidQ64s", 1, 100, 10, 5, 1, 2, 3, 5, 5, 2, 64, 64, 0, 1.5, 99, b"triage")
    save("protocol", "activity", frame(67, struct.pack("=I", 2) + rows + rows))
    status = struct.pack("=Id9i5QId9Q2i", 2, 0.5, 2, 4096, 512, 10, 9, 64, 1024, 3, 1, 1, 2, 2, 3, 4, 1, 5.0, *range(6, 15), 1, 0)
    status += b"".join(field(s) for s in (b"qwen3", b"n", b"Q8_0", b"d", b"cpu", b"r", b"avx2", b"planes: 8 bits", None, None, None))
    save("protocol", "status", frame(128, status, 0))
    save("protocol", "too-long", struct.pack("=IIQ", 0xFFFFFFF0, 2, 1))
    save("protocol", "cut", frame(2, request(1, [b"x"]))[:-3])


if __name__ == "__main__":
    gguf_inputs()
    protocol_inputs()
