"""A full training step (forward, backward, clip, AdamW) beside transformers' LLaMA and TencentPretrain's, on CPU.

    python benchmarks/train_step.py [--rounds 3] [--shapes 256x8 1024x2 2048x1] [--threads 1 2]

Every library runs in its own process, in turn, `rounds` times: the same model (256 wide, 8 layers, 8 heads, feed-forward
688, vocabulary 32,000, float32), the same ids, the same clip and fused AdamW. Printed: tokens per wall second, tokens
per CPU second, peak memory of the process, medians over the rounds, and the ratios to ours from the same round. The
line `gemm` is the ceiling that the products with the weights alone set on this machine, without attention.
TencentPretrain takes part when TENCENTPRETRAIN points to a checkout of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WIDTH, LAYERS, HEADS, FFN, VOCABULARY = 256, 8, 8, 688, 32000


def ours(sequence: int) -> tuple[object, Callable]:
    """Our model and the loss of ids [B, T + 1]."""
    from tp_ext.models import build, config_of
    from tp_ext.models.decoder import initial_weight

    config = config_of("llama-7b").replace(
        emb_size=WIDTH, hidden_size=WIDTH, feedforward_size=FFN, heads_num=HEADS, layers_num=LAYERS
    )
    model = build(config)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(initial_weight(name, parameter.shape, config, 0))
    return model, lambda ids: model(ids[:, :-1], ids[:, 1:])


def transformers(sequence: int) -> tuple[object, Callable]:
    """transformers' model with sdpa attention; its own loss, which shifts the labels itself."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            vocab_size=VOCABULARY, max_position_embeddings=max(2048, sequence), attn_implementation="sdpa",
            use_cache=False,
        )
    )  # fmt: skip
    return model, lambda ids: model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss


def tencentpretrain(sequence: int) -> tuple[object, Callable]:
    """The host's own model from its own classes."""
    import torch

    checkout = os.environ["TENCENTPRETRAIN"]
    sys.path.insert(0, checkout)
    os.chdir(checkout)
    from tencentpretrain.embeddings import Embedding, str2embedding
    from tencentpretrain.encoders import str2encoder
    from tencentpretrain.models.model import Model
    from tencentpretrain.opts import model_opts
    from tencentpretrain.targets import Target, str2target

    parser = argparse.ArgumentParser()
    model_opts(parser)
    args = parser.parse_args([])
    values = json.loads(Path(checkout, "models/llama/7b_config.json").read_text())
    values.update(emb_size=WIDTH, hidden_size=WIDTH, feedforward_size=FFN, heads_num=HEADS, layers_num=LAYERS,
                  max_seq_length=max(2048, sequence))  # fmt: skip
    for name, value in values.items():
        setattr(args, name, value)
    embedding = Embedding(args)
    embedding.update(str2embedding["word"](args, VOCABULARY), "word")
    target = Target()
    target.update(str2target["lm"](args, VOCABULARY), "lm")
    model = Model(args, embedding, str2encoder["transformer"](args), None, None, target)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    return model, lambda ids: model(ids[:, :-1], ids[:, 1:], torch.ones_like(ids[:, 1:]))


LIBRARIES = {"ours": ours, "transformers": transformers, "tencentpretrain": tencentpretrain}


def measure(library: str, sequence: int, batch: int, threads: int, steps: int) -> dict[str, float]:
    """Seconds a step and peak memory of one library in this process."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, loss_of = LIBRARIES[library](sequence)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, VOCABULARY, (batch, sequence + 1))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    step()
    walls, cpus = [], []
    for _ in range(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"wall": statistics.median(walls), "cpu": statistics.median(cpus), "peak": peak, "loss": loss}


def gemm(sequence: int, batch: int, threads: int) -> float:
    """Seconds the products with the weights take alone, three for each matrix; attention is not in it."""
    import torch

    torch.set_num_threads(threads)
    tokens = sequence * batch
    total = 0.0
    for rows, columns, count in [(WIDTH, WIDTH, 4 * LAYERS), (FFN, WIDTH, 3 * LAYERS), (VOCABULARY, WIDTH, 1)]:
        chunk = min(tokens, 512)
        hidden, weight = torch.randn(chunk, columns), torch.randn(rows, columns)
        output, of_weight, of_hidden = torch.empty(chunk, rows), torch.zeros(rows, columns), torch.empty(chunk, columns)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            torch.mm(hidden, weight.t(), out=output)
            torch.mm(output, weight, out=of_hidden)
            of_weight.addmm_(output.t(), hidden)
            seconds.append(time.perf_counter() - start)
        total += min(seconds) * count * tokens / chunk
    return total


def main() -> None:
    """Parse the command line, run every library in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="counted steps a round, after one that is not counted")
    parser.add_argument("--shapes", nargs="+", default=["256x8", "1024x2", "2048x1"], help="sequence x batch")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--one", choices=[*LIBRARIES, "gemm"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        sequence, batch = map(int, args.shapes[0].split("x"))
        if args.one == "gemm":
            print(json.dumps({"wall": gemm(sequence, batch, args.threads[0])}))
        else:
            print(json.dumps(measure(args.one, sequence, batch, args.threads[0], args.steps)))
        return

    libraries = ["gemm", "ours", "transformers"] + (["tencentpretrain"] if os.environ.get("TENCENTPRETRAIN") else [])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    for threads in args.threads:
        for shape in args.shapes:
            sequence, batch = map(int, shape.split("x"))
            results: dict[str, list[dict[str, float]]] = {library: [] for library in libraries}
            for _ in range(args.rounds):
                for library in libraries:
                    command = [sys.executable, __file__, "--one", library, "--shapes", shape]
                    command += ["--threads", str(threads), "--steps", str(args.steps)]
                    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    results[library].append(json.loads(output.stdout.splitlines()[-1]))
            report(shape, threads, sequence * batch, results)


def report(shape: str, threads: int, tokens: int, results: dict[str, list[dict[str, float]]]) -> None:
    """Print one block of the table."""
    print(f"\nsequence x batch {shape}, {threads} thread{'s' * (threads > 1)}")
    print(f"{'':16} {'tok/s':>8} {'tok/cpu-s':>10} {'peak GB':>8} {'ours: speed':>12} {'memory':>7}")
    for library, rounds in results.items():
        def median(name: str, rounds: list[dict[str, float]] = rounds) -> float:
            return statistics.median(each[name] for each in rounds)

        def ratio(name: str, rounds: list[dict[str, float]] = rounds) -> float:
            return statistics.median(each[name] / mine[name] for each, mine in zip(rounds, results["ours"], strict=True))

        line = f"{library:16} {tokens / median('wall'):8.0f}"
        if library != "gemm":
            line += f" {tokens / median('cpu'):10.0f} {median('peak'):8.2f} {ratio('wall'):11.2f}x {1 / ratio('peak'):6.2f}x"
        print(line, flush=True)


if __name__ == "__main__":
    main()
