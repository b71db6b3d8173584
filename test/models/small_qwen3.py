"""Qwen3's architecture in PyTorch, small: grouped queries, norms of queries and keys, SwiGLU, rotary positions, tied head.

The names of the parameters are those of the tensors in a GGUF file.
"""
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6


@dataclasses.dataclass
class Config:
    n_vocab: int
    n_layer: int = 6
    n_embd: int = 256
    n_ff: int = 768
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    theta: float = 10000.0
    n_ctx: int = 4096


SIZES = {  # what a size sets of a Config
    "test": {"n_layer": 2, "n_embd": 64, "n_ff": 128, "n_head": 2, "n_head_kv": 1, "head_dim": 32},
    "cpu": {},
    "gpu": {"n_layer": 8, "n_embd": 320, "n_ff": 1152, "n_head": 5, "n_head_kv": 5},
}


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPS)


def rotate(x, cos, sin):
    """Turns the first half of every head against the second."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.attn_norm, self.ffn_norm = Norm(c.n_embd), Norm(c.n_embd)
        self.attn_q = nn.Linear(c.n_embd, c.n_head * c.head_dim, bias=False)
        self.attn_k = nn.Linear(c.n_embd, c.n_head_kv * c.head_dim, bias=False)
        self.attn_v = nn.Linear(c.n_embd, c.n_head_kv * c.head_dim, bias=False)
        self.attn_output = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=False)
        self.attn_q_norm, self.attn_k_norm = Norm(c.head_dim), Norm(c.head_dim)
        self.ffn_gate = nn.Linear(c.n_embd, c.n_ff, bias=False)
        self.ffn_up = nn.Linear(c.n_embd, c.n_ff, bias=False)
        self.ffn_down = nn.Linear(c.n_ff, c.n_embd, bias=False)

    def heads(self, x, norm=None):
        x = x.unflatten(-1, (-1, self.c.head_dim))
        return (norm(x) if norm else x).transpose(1, 2)

    def forward(self, x, cos, sin, mask, cache=None):
        h = self.attn_norm(x)
        q = rotate(self.heads(self.attn_q(h), self.attn_q_norm), cos, sin)
        k = rotate(self.heads(self.attn_k(h), self.attn_k_norm), cos, sin)
        v = self.heads(self.attn_v(h))
        if cache is not None:
            k, v = cache.put(k, v)
        groups = self.c.n_head // self.c.n_head_kv
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        h = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)
        x = x + self.attn_output(h.transpose(1, 2).flatten(-2))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Cache:
    """Keys and values of one layer; row i writes what comes at slots at[i], at[i] + 1 ..."""

    def __init__(self, rows, c, n, dtype, device):
        self.k = torch.zeros(rows, c.n_head_kv, n, c.head_dim, dtype=dtype, device=device)
        self.v = torch.zeros_like(self.k)
        self.slots = None  # [rows, tokens]

    def put(self, k, v):
        index = self.slots[:, None, :, None].expand_as(k)
        self.k.scatter_(2, index, k.to(self.k.dtype))
        self.v.scatter_(2, index, v.to(self.v.dtype))
        return self.k, self.v


class SmallQwen3(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        self.token_embd = nn.Embedding(c.n_vocab, c.n_embd)
        self.blk = nn.ModuleList(Layer(c) for _ in range(c.n_layer))
        self.output_norm = Norm(c.n_embd)
        inverse = c.theta ** -(torch.arange(0, c.head_dim, 2).double() / c.head_dim)
        angle = torch.arange(c.n_ctx).double()[:, None] * inverse
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / ((2 * c.n_layer) ** 0.5 if name.endswith(("attn_output.weight", "ffn_down.weight")) else 1))

    def forward(self, tokens, positions, mask, caches=None):
        """Hidden states after the last norm; mask: [rows, 1, queries, keys], true where a query sees a key."""
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        x = self.token_embd(tokens)
        for i, layer in enumerate(self.blk):
            x = layer(x, cos.to(x.dtype), sin.to(x.dtype), mask, caches[i] if caches else None)
        return self.output_norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.token_embd.weight)


def causal(tokens):
    """(positions, mask) for rows that are read from left to right."""
    n = tokens.shape[1]
    positions = torch.arange(n, device=tokens.device).expand_as(tokens)
    return positions, torch.ones(n, n, dtype=torch.bool, device=tokens.device).tril()[None, None]


@torch.no_grad()
def generate(model, prompts, max_tokens, end):
    """Greedy answers to the prompts (lists of tokens), computed together; without end."""
    c, device = model.config, model.token_embd.weight.device
    n_rows, longest = len(prompts), max(map(len, prompts))
    tokens = torch.zeros(n_rows, longest, dtype=torch.long, device=device)
    for i, p in enumerate(prompts):
        tokens[i, :len(p)] = torch.tensor(p)
    length = torch.tensor([len(p) for p in prompts], device=device)
    n = longest + max_tokens
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda") else torch.float32
    caches = [Cache(n_rows, c, n, dtype, device) for _ in range(c.n_layer)]
    keys = torch.arange(n, device=device)
    slots = keys[:longest].expand(n_rows, -1)
    answers, done = [[] for _ in prompts], [False] * n_rows
    for step in range(max_tokens):
        for cache in caches:
            cache.slots = slots
        hidden = model(tokens, slots, (keys <= slots[..., None])[:, None], caches)
        last = hidden[torch.arange(n_rows), length - 1] if step == 0 else hidden[:, 0]
        best = model.logits(last).argmax(-1)
        for i, token in enumerate(best.tolist()):
            done[i] = done[i] or token == end
            if not done[i]:
                answers[i].append(token)
        if all(done):
            break
        tokens, slots = best[:, None], (length + step)[:, None]
    return answers
