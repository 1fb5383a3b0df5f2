"""What keeping packed documents apart costs: attention alone and a whole training step, on CPU.

    python benchmarks/document_mask.py [--seq_length 2048] [--threads 1] [--rounds 5]

Documents of equal length fill every row; forward and backward, float32, medians of `rounds` turns in one process.
`whole rows` is causal attention that lets documents see each other, `documents` is ours, `boolean mask` the same result
with a block-diagonal mask [B, 1, T, T] in torch's scaled_dot_product_attention. The step is that of a LLaMA 256 wide with
8 layers and 32,000 pieces, without the optimizer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tp_ext.models import build, config_of
from tp_ext.models.decoder import initial_weight
from tp_ext.nn.attention import attend, attend_within
from tp_ext.nn.documents import spans_of

BATCH, HEADS, SIZE = 2, 8, 64


def medians(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) * 1e3 for name, each in seconds.items()}


def masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention with a mask [B, 1, T, T]."""
    heads = (each.transpose(1, 2) for each in (query, key, value))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq_length", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokens = args.seq_length
    width = {"emb_size": 256, "hidden_size": 256, "feedforward_size": 688, "heads_num": HEADS, "layers_num": 8}
    config = config_of("llama-7b").replace(**width)
    model = build(config)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(initial_weight(name, parameter.shape, config, 0))
    ids = torch.randint(0, 32000, (BATCH, tokens + 1))
    heads = [torch.randn(BATCH, tokens, HEADS, SIZE, requires_grad=True) for _ in range(3)]
    seg = torch.ones_like(ids[:, 1:])

    def step(documents: Tensor | None) -> None:
        model.zero_grad()
        model(ids[:, :-1], ids[:, 1:], seg, documents).backward()

    print(f"{'document':>9} {'attention, ms: whole rows':>26} {'documents':>10} {'boolean mask':>13} "
          f"{'step, ms: whole rows':>21} {'documents':>10}")  # fmt: skip
    for length in (32, 128, 512, tokens):
        documents = (torch.arange(tokens) // length).expand(BATCH, -1)
        place = torch.arange(tokens)
        mask = (documents[:, None, :, None] == documents[:, None, None]) & (place <= place[:, None])
        spans = spans_of(documents)
        found = medians(
            {
                "rows": lambda: torch.autograd.grad(attend(*heads).sum(), heads),
                "documents": lambda spans=spans: torch.autograd.grad(attend_within(*heads, None, spans).sum(), heads),
                "mask": lambda mask=mask: torch.autograd.grad(masked(*heads, mask).sum(), heads),
                "step rows": lambda: step(None),
                "step documents": lambda documents=documents: step(documents),
            },
            args.rounds,
        )
        print(f"{length:9} {found['rows']:26.0f} {found['documents']:10.0f} {found['mask']:13.0f} "
              f"{found['step rows']:21.0f} {found['step documents']:10.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
