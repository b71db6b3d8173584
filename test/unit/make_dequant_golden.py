#!/usr/bin/env python3
"""Writes dequant_golden.h: random blocks of every quantised type and what gguf's own code makes of them.

    make_dequant_golden.py > dequant_golden.h

Needs numpy and gguf (both on PyPI).
"""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as QT
from gguf.quants import dequantize

TYPES = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}


def rows(values, form, per_line):
    for i in range(0, len(values), per_line):
        yield "\t" + ", ".join(form(v) for v in values[i:i + per_line]) + ","


def main():
    rng = np.random.Generator(np.random.PCG64(20))
    print("/*\n * dequant_golden.h: blocks of every type (bytes) and their weights (bits of floats), made by\n"
          " * make_dequant_golden.py.\n */\n#ifndef TEST_DEQUANT_GOLDEN_H\n#define TEST_DEQUANT_GOLDEN_H\n\n"
          "#include <stdint.h>\n")
    for name in TYPES:
        block, size = GGML_QUANT_SIZES[QT[name]]
        n = 64 if block == 1 else 2 if block == 32 else 1
        if block == 1:  # every kind of number but NaN: subnormal, zero, large, infinite
            data = rng.standard_normal(n).astype(np.float16).view(np.uint16)
            data[:8] = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00)
            data = data.view(np.uint8)[None, :]
            if name == "BF16":
                data = (rng.standard_normal(n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
                data = data.view(np.uint8)[None, :]
        else:
            data = rng.integers(0, 256, (n, size), dtype=np.uint8)
            for at in SCALES[name]:
                data[:, at:at + 2] = (rng.standard_normal((n, 1)) * 0.1).astype(np.float16).view(np.uint8)
            data = data.reshape(1, -1)
        weights = dequantize(data, QT[name]).astype(np.float32).view(np.uint32).reshape(-1)
        print(f"static const uint8_t golden_{name.lower()}_bytes[] = {{")
        print(*rows(data.reshape(-1), "{}".format, 24), sep="\n")
        print(f"}};\nstatic const uint32_t golden_{name.lower()}_weights[] = {{")
        print(*rows(weights, "0x{:08x}".format, 8), sep="\n")
        print("};\n")
    print("#endif")


if __name__ == "__main__":
    main()
