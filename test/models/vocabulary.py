"""The vocabulary: byte-level BPE behind Qwen2's pre-tokenizer, and prompts in ChatML as src/model/chat.c writes them."""
import os

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# What may become one token. Finer than PATTERN: a name or code has the same tokens behind a space, a quote and an equals
# sign, so that to copy it is to repeat tokens. A merge that is never learned is never made, so PATTERN reads it alike.
MERGES = r" ?\p{Ll}+|\p{Lu}\p{L}*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(texts, size):
    """A vocabulary of at most that size, with the special tokens at its end."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = split(MERGES)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                       show_progress=False))
    tok.pre_tokenizer = split(PATTERN)
    tok.add_special_tokens(list(SPECIAL))
    return tok


class Chat:
    """Tokens of turns. Text can never become a special token: each is put in by its number."""

    def __init__(self, path):
        self.tok = Tokenizer.from_file(os.fspath(path))
        self.end_of_text, self.start, self.end, self.think, self.unthink = map(self.tok.token_to_id, SPECIAL)
        self.n_vocab = -(-self.tok.get_vocab_size() // 64) * 64
        self.remembered = {}

    def text(self, s):
        """Tokens of a piece of text; special tokens in it stay text, which the rows have none of."""
        return self.tok.encode(s).ids

    def fixed(self, s):
        if s not in self.remembered:
            self.remembered[s] = self.text(s)
        return self.remembered[s]

    def turn(self, role, content):
        return [self.start, *self.text(f"{role}\n{content}"), self.end, *self.fixed("\n")]

    def opening(self):
        """The beginning of the model's turn, after which it may think."""
        return [self.start, *self.fixed("assistant\n")]

    def no_thoughts(self):
        return [self.think, *self.fixed("\n\n"), self.unthink, *self.fixed("\n\n")]

    def thoughts(self, trace):
        return [self.think, *self.fixed("\n"), *self.text(trace), *self.fixed("\n"), self.unthink, *self.fixed("\n\n")]

    def decode(self, ids):
        return self.tok.decode(ids, skip_special_tokens=False)
