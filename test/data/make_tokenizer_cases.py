#!/usr/bin/env python3
"""Makes the tokenizer test cases that are expected to equal the models' own tokenizer.

    make_tokenizer_cases.py qwen3                   # qwen3-tokenizer/more.jsonl
    make_tokenizer_cases.py smollm2 MODEL.gguf      # smollm2-tokenizer/cases.jsonl

Needs tokenizers (PyPI), the library that the models were published with; for smollm2 also gguf.
A line is {"pre": ..., "special": ..., "text": ..., "ids": [...]}: the pre-tokenizer's name, whether
added tokens are parsed, the text and the tokens expected. qwen3 also takes Qwen3's vocabulary
through the other pre-tokenizers, so that these are tested without another vocabulary.
"""
import gzip
import json
import os
import random
import sys

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))

WORDS = [
    "'s", "'S", "'ſ", "'re", "'RE", "'lL", "'t", "'M", "'d", "'ve", "'", "don't", "it's", " ", "  ", "   ", "\n", "\r\n",
    "\n\n", "\r", "\t", "\u3000", "\xa0", "\x85", "\u2028", "\x1c", "\x0b", "\u200b", "\u180e", "\ufeff", "1", "23",
    " 42", "½", "Ⅷ", "²", "٣", "०", "3.14", "a", "Abc", "the", " hello", " HTTPServer", "ñ", "n\u0303", "e\u0301",
    "\u0301", "\u0316\u0301", "\u0301\u0316", "가", "\u1100\u1161\u11a8", "각", "\u11a8", "你好", "世界", "日本語", "नि",
    "ক্", "ไทย", "مرحبا", "\u05b0\u05bc", "😀", "👩\u200d👩\u200d👧", "!", "...", "(", "_", "—", '"', "<", "|>", "\u212b",
    "\u2126", "\u0958", "\u0344", "\u1e9b\u0323", "ß", "ﬁ", "\u212a", "İ", "i\u0307", "{}", "::", "//", "#", "\\n", "=",
    "SELECT", " FROM", ";", "\u0cbf\u0cc0", "\U0001d15e", "\U00011099\U000110ba", "\ufb2b", "\u0f71\u0f72", "\u0f73",
]
WHOLE = [
    "a" * 100, "a" * 1001, " " * 300 + "x", "=" * 257, "\n" * 50, "ab" * 200, "混合" * 60, "e\u0301" * 70,
    "a" + "\u0301\u0316" * 40, "Donaudampfschifffahrtsgesellschaftskapitän" * 3, "  \n  \n x", "x \t\r\n y", "\t\tif (x)\n",
]


def texts(rng, added, n):
    yield from WHOLE
    yield from added
    for a in added[:4]:
        yield a[:-1]
        yield a + a + " x" + a
        yield "x" + a[:3] + a
    words = WORDS + added[:8]
    for _ in range(n):
        yield "".join(rng.choice(words) for _ in range(rng.randint(1, 16)))


def write(path, groups):
    with open(path, "w", encoding="utf-8") as out:
        for pre, plain, special, added, n in groups:
            rng = random.Random(pre)
            for text in texts(rng, added, n):
                for parse, tokenizer in ((False, plain), (True, special)):
                    ids = tokenizer.encode(text, add_special_tokens=False).ids
                    if parse and ids == plain.encode(text, add_special_tokens=False).ids:
                        continue
                    case = {"pre": pre, "special": parse, "text": text, "ids": ids}
                    out.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


def byte_level(digits):
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence(([pre_tokenizers.Digits(individual_digits=True)] if digits else []) + [split])


def qwen3():
    folder = os.path.join(HERE, "qwen3-tokenizer")
    data = json.load(gzip.open(os.path.join(folder, "tokenizer.json.gz")))
    added = data["added_tokens"]
    names = [a["content"] for a in added]
    groups = []
    for pre in ("qwen2", "smollm", "gpt-2"):
        pair = []
        for data["added_tokens"] in ([], added):
            if pre != "qwen2":
                data["normalizer"] = None
            pair.append(Tokenizer.from_str(json.dumps(data)))
            if pre != "qwen2":
                pair[-1].pre_tokenizer = byte_level(pre == "smollm")
        groups.append((pre, *pair, names if pre == "qwen2" else names[:2], 200 if pre == "qwen2" else 120))
    write(os.path.join(folder, "more.jsonl"), groups)


def smollm2(path):
    import gguf
    fields = gguf.GGUFReader(path).fields
    tokens, merges = (fields[f"tokenizer.ggml.{k}"].contents() for k in ("tokens", "merges"))
    types = fields["tokenizer.ggml.token_type"].contents()
    added = [t for t, kind in zip(tokens, types) if kind in (3, 4)]

    def make():
        t = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
        t.pre_tokenizer = byte_level(True)
        return t

    plain, special = make(), make()
    special.add_special_tokens([AddedToken(a, special=True, normalized=False) for a in added])
    folder = os.path.join(HERE, "smollm2-tokenizer")
    write(os.path.join(folder, "cases.jsonl"), [("smollm", plain, special, added, 250)])


if __name__ == "__main__":
    {"qwen3": qwen3, "smollm2": smollm2}[sys.argv[1]](*sys.argv[2:])
