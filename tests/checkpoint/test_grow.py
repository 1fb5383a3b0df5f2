import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import BLOOM, LLAMA, WORDS, environment, extend_spm, tiny

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.formats import open_model, write_trained, write_weights
from tp_ext.checkpoint.grow import METHODS, grow
from tp_ext.checkpoint.source import EMBEDDING, HEAD
from tp_ext.checkpoint.tensors import mean_row
from tp_ext.errors import CheckpointError
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.tokens.tokenizer import open_tokenizer

OLD, NEW = 500, 500 + len(WORDS) + 1


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for each in ("grow", "tensors"):
        monkeypatch.setattr(f"tp_ext.checkpoint.{each}.BLOCK", 7)  # so that 500 old rows and 17 new ones give remainders


def source_of(folder, tokenizer, family=LLAMA, dtype=torch.float32, **changes):
    """A native folder of a model whose rows are unlike each other, opened."""
    config = tiny(family, **{"vocab_size": tokenizer.vocab_size, **changes})
    names = dict(build(config).named_parameters())
    weights = ((name, initial_weight(name, value.shape, config, 3) + 0.01) for name, value in names.items())
    folder.mkdir()
    write_trained(folder, config, families, weights, dtype, tokenizer, {})
    return open_model(folder, families)


def tables(source):
    tensors = dict(source.read())
    return [tensors[name] for name in (EMBEDDING, HEAD) if name in tensors]


FAMILIES = [LLAMA, {**LLAMA, "tie_weights": True}, BLOOM, {**BLOOM, "tie_weights": False}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_old_rows_and_all_else_stay_bit_for_bit(tmp_path, tokenizer, merged, method, dtype):
    for number, family in enumerate(FAMILIES):
        source = source_of(tmp_path / str(number), tokenizer, family, dtype)
        grown = grow(source, tokenizer, merged, method)
        before, after = dict(source.read()), dict(grown.read())
        assert list(after) == list(before) == list(grown.shapes)
        for name, tensor in after.items():
            assert tensor.dtype == dtype
            assert tuple(tensor.shape) == grown.shapes[name]
            old = tensor[:OLD] if name in (EMBEDDING, HEAD) else tensor
            assert torch.equal(old, before[name])
        assert grown.config.rows == len(after[EMBEDDING]) == NEW
        assert (HEAD in after) != grown.config.tie_weights
        new = after[EMBEDDING][OLD:]
        assert bool(torch.isfinite(new).all() and (new.float().norm(dim=1) > 0).all())


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    for method in METHODS:
        first, again = (tables(grow(source, tokenizer, merged, method, seed=1)) for _ in range(2))
        other = tables(grow(source, tokenizer, merged, method, seed=2))
        assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
        drawn = method in ("gaussian", "random")
        assert torch.equal(first[0], other[0]) != drawn
        assert torch.equal(first[1], other[1]) != drawn
        if drawn:
            assert not torch.equal(first[0][OLD:-1], first[1][OLD:-1])  # embedding and head are not the same draw


def test_mean_of_pieces_is_the_mean_of_what_the_base_cuts_the_text_into(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    for before, after in zip(tables(source), tables(grow(source, tokenizer, merged)), strict=True):
        for index, word in enumerate(WORDS, OLD):
            ids = tokenizer.encode_inside([word])[0]
            assert len(ids) > 1
            assert (after[index] - before[ids].mean(0)).abs().max() <= 1e-6
        assert (after[-1] - before.mean(0)).abs().max() <= 1e-6  # <pad> stands for no text


def test_mean_is_that_of_all_rows(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    for before, after in zip(tables(source), tables(grow(source, tokenizer, merged, "mean")), strict=True):
        assert (after[OLD:] - before.mean(0)).abs().max() <= 1e-6


def test_weighted_takes_neighbours_in_the_embedding_and_uses_them_in_the_head(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    (embedding, head), (grown, grown_head) = tables(source), tables(grow(source, tokenizer, merged, "weighted"))
    for index, word in enumerate(WORDS, OLD):
        mean = embedding[tokenizer.encode_inside([word])[0]].mean(0)
        near, ids = torch.cosine_similarity(embedding, mean[None]).topk(10)
        weights = (near / 0.1).softmax(0)
        assert (grown[index] - weights @ embedding[ids]).abs().max() <= 1e-5
        assert (grown_head[index] - weights @ head[ids]).abs().max() <= 1e-5


def test_gaussian_has_the_mean_and_covariance_of_the_old_rows(tmp_path, tokenizer, spm_path):
    many = [chr(code) for code in range(0xAC00, 0xAC00 + 6000)]
    merged = extend_spm(spm_path, tmp_path / "many.model", many)
    source = source_of(tmp_path / "m", tokenizer)
    for before, after in zip(tables(source), tables(grow(source, tokenizer, merged, "gaussian")), strict=True):
        new = after[OLD:-1]
        assert (new.mean(0) - before.mean(0)).abs().max() <= 5 * 0.02 / 6000**0.5
        expected, found = torch.cov(before.t()), torch.cov(new.t())
        assert (found - expected).norm() / expected.norm() <= 0.15  # sqrt(64 / 6000) is 0.1
        assert (torch.cov(torch.randn(6000, 64).t()) * 0.02**2 - expected).norm() / expected.norm() > 0.2


def test_gaussian_of_rows_that_span_little_is_still_drawn(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    flat = torch.ones(OLD, 1) * torch.arange(64.0)  # all rows alike: the covariance is 0
    weights = {**dict(source.read()), EMBEDDING: flat}
    source = replace(source, read=lambda: iter(weights.items()))
    after = tables(grow(source, tokenizer, merged, "gaussian"))[0]
    assert (after[OLD:] - flat[0]).abs().max() <= 1e-4


def test_random_is_small_noise_and_special_rows_are_a_mean(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    for before, after in zip(tables(source), tables(grow(source, tokenizer, merged, "random")), strict=True):
        assert after[OLD:-1].std().item() == pytest.approx(0.02, rel=0.1)
        assert (after[-1] - before.mean(0)).abs().max() <= 1e-6


def test_the_head_follows_its_own_method(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    for head_method in METHODS:
        embedding, head = tables(grow(source, tokenizer, merged, "mean_of_pieces", head_method))
        assert torch.equal(embedding, tables(grow(source, tokenizer, merged, "mean_of_pieces"))[0])
        assert torch.equal(head, tables(grow(source, tokenizer, merged, head_method))[1])


def test_rows_that_filled_the_base_up_do_not_stay_in_the_middle(tmp_path, tokenizer, merged):
    for number, changes in enumerate([{"vocab_size": 512}, {"vocab_size": 503, "vocab_padding": 3}]):
        source = source_of(tmp_path / str(number), tokenizer, **changes)
        grown = grow(source, tokenizer, merged)
        assert grown.config.rows == NEW
        assert grown.config.vocab_padding == 0
        for before, after in zip(tables(source), tables(grown), strict=True):
            assert torch.equal(after[:OLD], before[:OLD])
            assert (after[-1] - before[:OLD].mean(0)).abs().max() <= 1e-6


def test_rows_are_filled_up_to_a_multiple_with_a_mean(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer, dtype=torch.bfloat16)
    grown = grow(source, tokenizer, merged, multiple_of=64)
    assert (grown.config.rows, grown.config.vocab_padding) == (576, 576 - NEW)
    for before, after in zip(tables(source), tables(grown), strict=True):
        assert torch.equal(after[NEW:], mean_row(before).bfloat16().expand(576 - NEW, -1))


def test_a_grown_model_is_written_and_read_in_every_format(tmp_path, tokenizer, merged):
    for number, family in enumerate(FAMILIES):
        grown = grow(source_of(tmp_path / f"m{number}", tokenizer, family), tokenizer, merged, multiple_of=64)
        for to in ("native", "huggingface", "tencentpretrain"):
            folder = tmp_path / f"{to}{number}"
            folder.mkdir()
            write_weights(folder, grown, to, torch.float32)
            written = open_model(folder, families)
            rows = 576 if to == "native" else NEW
            assert (written.config.rows, written.config.vocab_padding) == (rows, rows - NEW)
            for one, other in zip(tables(grown), tables(written), strict=True):
                assert torch.equal(one[:rows], other)


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_a_conversion_cuts_padding_off_and_says_so_in_the_configuration(tmp_path, tokenizer, family):
    source = source_of(tmp_path / "m", tokenizer, family, vocab_size=512, vocab_padding=12)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["vocab_padding"] == 12
    for to in ("huggingface", "tencentpretrain"):
        written = convert(tmp_path / "m", tmp_path / to, to, families)
        assert torch.equal(tables(written)[0], tables(source)[0][:OLD])
        values = json.loads((tmp_path / to / "config.json").read_text())
        assert values["vocab_size"] == OLD
        assert "vocab_padding" not in values
    kept = convert(tmp_path / "m", tmp_path / "native", "native", families)
    assert (kept.config.rows, kept.config.vocab_padding) == (512, 12)


def test_a_base_of_other_rows_is_refused_with_both_numbers(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    with pytest.raises(CheckpointError, match=f"the embedding has 500 rows and .* has {NEW} pieces"):
        grow(source, merged, merged)


def test_a_merged_tokenizer_that_does_not_begin_with_the_base_is_refused(tmp_path, tokenizer, merged, spm_path):
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    source = source_of(tmp_path / "m", tokenizer)
    model = ModelProto.FromString(merged.content)
    model.pieces[321].piece = "other"
    (tmp_path / "other.model").write_bytes(model.SerializeToString())
    expected = f"piece 321 is 'other' instead of '{tokenizer.piece(321)}'"
    with pytest.raises(CheckpointError, match=expected):
        grow(source, tokenizer, open_tokenizer(tmp_path / "other.model"))
    model = ModelProto.FromString(merged.content)
    model.pieces[400].type = 3
    (tmp_path / "kind.model").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="piece 400 .*of another kind"):
        grow(source, tokenizer, open_tokenizer(tmp_path / "kind.model"))
    model = ModelProto.FromString(tokenizer.content)
    del model.pieces[-5:]
    (tmp_path / "short.model").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="has 495 pieces, fewer than the 500"):
        grow(source, tokenizer, open_tokenizer(tmp_path / "short.model"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "mean_of_piece"}, "no method named 'mean_of_piece' .* Did you mean 'mean_of_pieces'?"),
        ({"head_method": "wieghted"}, "no method named 'wieghted' .* Did you mean 'weighted'?"),
        ({"multiple_of": 0}, "multiple_of is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, tokenizer, merged, settings, expected):
    with pytest.raises(CheckpointError, match=expected):
        grow(source_of(tmp_path / "m", tokenizer), tokenizer, merged, **settings)


def test_a_method_for_a_head_that_is_the_embedding_is_refused(tmp_path, tokenizer, merged):
    with pytest.raises(CheckpointError, match="head is its embedding"):
        grow(source_of(tmp_path / "m", tokenizer, BLOOM), tokenizer, merged, head_method="mean")


def test_new_rows_that_are_no_finite_numbers_are_refused(tmp_path, tokenizer, merged):
    source = source_of(tmp_path / "m", tokenizer)
    damaged = {name: tensor.clone() for name, tensor in source.read()}
    damaged[HEAD][7, 3] = float("nan")
    source = replace(source, read=lambda: iter(damaged.items()))
    with pytest.raises(CheckpointError, match=f"new rows of {HEAD} are no finite numbers"):
        list(grow(source, tokenizer, merged).read())


LARGE = """
import resource, shutil, sys
from pathlib import Path
import torch
from tp_ext.checkpoint import files
from tp_ext.checkpoint.formats import open_model, write_weights
from tp_ext.checkpoint.source import Source, shapes_of
from tp_ext.checkpoint.grow import grow
from tp_ext.models import config_of, families

class Pieces:
    special_ids, path, file_name = frozenset(), "pieces", "tokenizer.model"
    def __init__(self, size): self.vocab_size = size
    def piece(self, index): return str(index)
    text = piece
    def encode_inside(self, texts): return [[int(text) % 32000, int(text) % 777, 5] for text in texts]

folder, method, to = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if to == "source":
    files.SHARD_BYTES = 1 << 30
    config = config_of("llama-7b").replace(layers_num=5)
    shapes, block = shapes_of(families.get("llama"), config), torch.randn(11008, 4096).bfloat16()
    def read():
        for name, shape in shapes.items():
            yield name, block.repeat(3, 1)[: shape[0]] if shape[1:] == (4096,) else torch.ones(shape, dtype=torch.bfloat16)
    source = Source(folder, to, families.get("llama"), config, shapes, torch.bfloat16, read)
    (folder / to).mkdir()
    write_weights(folder / to, source, "huggingface", torch.bfloat16)
else:
    source = open_model(folder / "source", families)
    (folder / to).mkdir()
    write_weights(folder / to, grow(source, Pieces(32000), Pieces(50000), method), to, source.dtype)
    assert open_model(folder / to, families).config.rows == 50000
    shutil.rmtree(folder / to)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_large_model_grows_in_less_than_two_gib(tmp_path):
    """The tables of a 7B model and five of its layers: more than 2 GiB in all."""

    def run(method, to):
        line = [sys.executable, "-c", LARGE, str(tmp_path), method, to]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("", "source")
        assert sum(file.stat().st_size for file in (tmp_path / "source").iterdir()) > 2 << 30
        for method, to in (("mean_of_pieces", "native"), ("mean_of_pieces", "huggingface"), ("random", "native")):
            assert int(run(method, to)) < 2 << 20, (method, to)  # in KiB
    finally:
        shutil.rmtree(tmp_path)
