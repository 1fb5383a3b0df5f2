"""A reader of Meta's layout written from the format's description alone: joins the ranks and computes logits."""

# B 1, T tokens, H heads, K kv heads, D head size, E model size

import json

import torch
from torch.nn import functional as F

BY_COLUMNS = ("attention.wo.weight", "feed_forward.w2.weight")
WHOLE = ("norm.weight",)


def read(folder):
    params = json.loads((folder / "params.json").read_text())
    ranks = [torch.load(file, weights_only=True) for file in sorted(folder.glob("consolidated.*.pth"))]
    joined = {}
    for name in ranks[0]:
        parts = [rank[name] for rank in ranks]
        if name.endswith(WHOLE):
            joined[name] = parts[0]
        elif name.endswith(BY_COLUMNS):
            joined[name] = torch.cat(parts, 1)
        elif name == "tok_embeddings.weight":
            joined[name] = torch.cat(parts, 1 if params.get("rope_theta", 1e4) < 5e5 else 0)
        else:
            joined[name] = torch.cat(parts, 0)
    return params, joined


def rms(hidden, weight, eps):
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(states, theta):  # [T, H, D], pairs beside each other
    length, _, size = states.shape
    angles = torch.arange(length)[:, None] * theta ** -(torch.arange(0, size, 2) / size)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def logits(folder, ids):
    params, weights = read(folder)
    heads, eps, theta = params["n_heads"], params["norm_eps"], params.get("rope_theta", 10000.0)
    kv_heads = params.get("n_kv_heads", heads)
    hidden = weights["tok_embeddings.weight"][ids]
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
    for i in range(params["n_layers"]):
        own = {name.removeprefix(f"layers.{i}."): each for name, each in weights.items() if name.startswith(f"layers.{i}.")}
        states = rms(hidden, own["attention_norm.weight"], eps)
        query, key, value = (
            (states @ own[f"attention.{name}.weight"].t()).unflatten(-1, (count, -1))
            for name, count in [("wq", heads), ("wk", kv_heads), ("wv", kv_heads)]
        )
        query, key = rotate(query, theta), rotate(key, theta)
        key, value = (each.repeat_interleave(heads // kv_heads, 1) for each in (key, value))
        scores = torch.einsum("thd,shd->hts", query, key) / query.shape[-1] ** 0.5 + mask
        mixed = torch.einsum("hts,shd->thd", scores.softmax(-1), value).flatten(1)
        hidden = hidden + mixed @ own["attention.wo.weight"].t()
        states = rms(hidden, own["ffn_norm.weight"], eps)
        inner = F.silu(states @ own["feed_forward.w1.weight"].t()) * (states @ own["feed_forward.w3.weight"].t())
        hidden = hidden + inner @ own["feed_forward.w2.weight"].t()
    return rms(hidden, weights["norm.weight"], eps) @ weights["output.weight"].t()
