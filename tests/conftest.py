"""What several tests need: a small text in two languages, a tokenizer trained on it, datasets, tiny models."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from warm import Warm

from tp_ext.config import ModelConfig
from tp_ext.data.preprocess import preprocess
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer
from tp_ext.tokens.train import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]

LLAMA = {
    "emb_size": 64, "hidden_size": 64, "feedforward_size": 96, "heads_num": 4, "layers_num": 2, "hidden_act": "silu",
    "feed_forward": "gated", "layernorm": "rms", "rotary_position_embedding": True, "remove_transformer_bias": True,
    "remove_embedding_layernorm": True, "max_seq_length": 256, "encoder": "llama",
}  # fmt: skip
BLOOM = {
    "emb_size": 48, "hidden_size": 48, "feedforward_size": 192, "heads_num": 6, "layers_num": 2,
    "hidden_act": "gelu_fast", "layernorm_eps": 1e-5, "alibi_position_embedding": True, "tie_weights": True,
    "max_seq_length": 256, "encoder": "bloom",
}  # fmt: skip

SUBJECTS = "县级以上人民政府 国务院有关部门 申请人 生产经营者 人民法院 行政机关 保险人 股东会 劳动者 用人单位".split()
VERBS = "应当依法公开 可以委托 不得擅自变更 负责监督管理 有权查阅 应当及时报告".split()
OBJECTS = "农作物种子 统计资料 合同的内容 安全生产条件 环境影响评价文件 财务会计报告 许可证 劳动合同".split()
ENGLISH = """the module returns a new list of values when an exception is raised by the function that opens file objects and
this method does not change any attribute of class instances unless its argument was given""".split()


def make_texts(count: int, seed: int) -> list[str]:
    """Documents of a few sentences, half Chinese, half English."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        if number % 2:
            words = [draw.choice(ENGLISH) for _ in range(draw.randint(8, 40))]
            texts.append(" ".join(words).capitalize() + ".")
        else:
            sentences = ["".join(map(draw.choice, (SUBJECTS, VERBS, OBJECTS))) for _ in range(draw.randint(1, 6))]
            texts.append(f"第{draw.randint(1, 99)}条 " + "，".join(sentences) + "。")
    return texts


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 600 documents, a line each."""
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n".join(make_texts(600, 1)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def spm_path(corpus: Path) -> Path:
    """A tokenizer of 500 pieces trained on `corpus`."""
    path = corpus.parent / "tokenizer.model"
    train_tokenizer(corpus.read_text(encoding="utf-8").splitlines(), 500, path)
    return path


@pytest.fixture(scope="session")
def tokenizer(spm_path: Path) -> Tokenizer:
    return open_tokenizer(spm_path)


WORDS = "县级 政府 人民政府 法院 行政 国务院 劳动者 合同的内容 依法 公开 监督 管理 保险 申请 财务 环境".split()


def extend_spm(base: Path, path: Path, pieces: Sequence[str] = WORDS, control: Sequence[str] = ("<pad>",)) -> Tokenizer:
    """The sentencepiece model `base` with more pieces at its end, the least likely ones, and control pieces after them."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto.FromString(base.read_bytes())
    lowest = min(piece.score for piece in model.pieces)
    for number, piece in enumerate((*pieces, *control)):
        kind = 3 if piece in control else 1
        model.pieces.add(piece=piece, score=lowest - 1 - number, type=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return open_tokenizer(path)


@pytest.fixture(scope="session")
def merged(spm_path: Path) -> Tokenizer:
    """`tokenizer` with WORDS and a padding piece."""
    return extend_spm(spm_path, spm_path.parent / "merged" / "tokenizer.model")


@pytest.fixture(scope="session")
def dataset(corpus: Path, tokenizer: Tokenizer) -> Path:
    """`corpus` tokenized."""
    preprocess([corpus], tokenizer, corpus.parent / "dataset", 32)
    return corpus.parent / "dataset"


@pytest.fixture(scope="session")
def held_out(corpus: Path, tokenizer: Tokenizer) -> Path:
    """Other documents of the same kind, tokenized."""
    text = corpus.parent / "held_out.txt"
    text.write_text("\n".join(make_texts(20, 2)) + "\n", encoding="utf-8")
    preprocess([text], tokenizer, corpus.parent / "held_out", 32)
    return corpus.parent / "held_out"


@pytest.fixture
def recipe(dataset: Path, held_out: Path, spm_path: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A maker of recipes for a tiny LLaMA on `dataset`; arguments `section__name` change single settings."""

    def make(**changes: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model": {"spm_model_path": str(spm_path), "config": {**LLAMA, "local_kv_heads_num": 2}},
            "data": {"dataset_path": str(dataset), "seq_length": 32},
            "train": {
                "output_model_path": str(tmp_path / "out"), "global_batch_size": 8, "micro_batch_size": 2,
                "total_steps": 8, "learning_rate": 1e-2, "dtype": "fp32", "warmup": 2, "save_checkpoint_steps": 4,
            },
            "evaluate": {"datasets": {"text": str(held_out)}, "steps": 8},
            "log": {"report_steps": 1},
        }  # fmt: skip
        for name, value in changes.items():
            section, setting = name.split("__")
            values.setdefault(section, {})[setting] = value
        return values

    return make


def environment() -> dict[str, str]:
    """The environment of a command: this checkout importable, one thread a process, as in every run compared here."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        known.pop(name, None)
    known["PATH"] = f"{Path(sys.executable).parent}:{known['PATH']}"
    return known


def _port() -> str:
    """Where the processes of a run find each other; another one beside another pytest."""
    return str(29500 + os.getpid() % 2000)


def command(*words: object, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout, or with `processes` let the deepspeed launcher run it."""
    start = [sys.executable]
    if processes:
        launcher = Path(sys.executable).with_name("deepspeed")
        start = [str(launcher), "--num_gpus", str(processes), "--master_port", _port()]
    line = [*start, *map(str, words)]
    return subprocess.run(line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


WARM = Warm()


@pytest.fixture(scope="session", autouse=True)
def _warm() -> Iterator[None]:
    """Ends the process that runs training."""
    yield
    WARM.close()


def training(*words: object, processes: int = 1, cold: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a script that trains, on so many processes; `cold` as users do, by the interpreter or the deepspeed launcher."""
    import torch

    if cold or torch.cuda.is_available():  # which a copy of a process that knows of it cannot use
        return command(*words, processes=processes if processes > 1 else 0)
    known = environment()
    if processes <= 1:
        return WARM.run([*map(str, words)], [known], ROOT)
    of_all = {"WORLD_SIZE": str(processes), "LOCAL_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port()}
    each = [{**known, **of_all, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return WARM.run([*map(str, words)], each, ROOT)


def pretrain(
    values: dict[str, Any], folder: Path, *overrides: str, processes: int = 1, cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run pretrain.py with a recipe."""
    path = folder / "recipe.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return training("pretrain.py", "--config", path, *overrides, processes=processes, cold=cold)


def metrics(folder: Path, name: str, file: str = "metrics") -> list[Any]:
    """The values of a metric over a run; with `file` "steps", of each of its steps."""
    rows = [json.loads(line) for line in (folder / f"{file}.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def tiny(family: dict[str, Any], **changes: Any) -> ModelConfig:
    """A tiny configuration."""
    return ModelConfig.from_json({"vocab_size": 101, **family, **changes})
