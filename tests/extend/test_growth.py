import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import BLOOM, LLAMA, extend_spm, make_texts, tiny

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.formats import KIND, open_model, write_trained
from tp_ext.checkpoint.grow import METHODS
from tp_ext.checkpoint.source import EMBEDDING, HEAD
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.extend import growth as module
from tp_ext.extend.growth import GrowthSettings, grow_model, manifest_of
from tp_ext.infer import load
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.output import write_manifest

TEXTS = make_texts(400, 11)
ENGLISH, CHINESE = TEXTS[1::2], TEXTS[::2]


@pytest.fixture(scope="module", params=[LLAMA, {**BLOOM, "tie_weights": True}], ids=["llama", "bloom"])
def base(request, tmp_path_factory, tokenizer):
    """A native folder of a model that was trained a little, so that it is sure of what comes next."""
    config = tiny(request.param, vocab_size=tokenizer.vocab_size)
    torch.manual_seed(0)
    model = build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_weight(name, parameter.shape, config, 0))
    ids = torch.tensor([i for text in make_texts(600, 1) for i in [1, *tokenizer.encode(text)]])
    ids = ids[: len(ids) // 65 * 65].view(-1, 65)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        rows = ids[torch.arange(step * 8, step * 8 + 8) % len(ids)]
        loss = model(rows[:, :-1], rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 3
    folder = tmp_path_factory.mktemp("base") / "m"
    folder.mkdir()
    write_trained(folder, config, families, iter(model.named_parameters()), torch.bfloat16, tokenizer, {})
    return folder


def staged(folder, merged):
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(merged.content)
    return folder


def grown(folder, path, tokenizer, merged, english=ENGLISH, chinese=CHINESE, progress=lambda *_: None, **settings):
    source = open_model(path, families)
    settings = GrowthSettings(**{"proof_tokens": 600, **settings})
    return grow_model(staged(folder, merged), source, tokenizer, merged, settings, english, chinese, progress)


@pytest.mark.parametrize("to", ["native", "huggingface", "tencentpretrain"])
def test_what_is_written_is_the_base_with_more_rows_in_the_same_format(tmp_path, base, tokenizer, merged, to):
    convert(base, tmp_path / "base", to, families)
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    steps = []
    growth = grown(tmp_path / "out", tmp_path / "base", tokenizer, merged, progress=lambda *step: steps.append(step))
    before, after = open_model(tmp_path / "base", families), open_model(tmp_path / "out", families)
    assert after.format == to
    assert after.dtype == torch.bfloat16
    for (name, one), (_, other) in zip(before.read(), after.read(), strict=True):
        assert torch.equal(one, other[: len(one)])
        assert len(other) == (merged.vocab_size if name in (EMBEDDING, HEAD) else len(one))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "tokenizer.model" in names
    assert "manifest.json" not in names
    assert ("tokenizer_config.json" in names) == ("tokenizer.json" in names) == (to == "huggingface")
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == merged.content
    assert (growth.rows_before, growth.rows_after, growth.vocab_padding) == (500, merged.vocab_size, 0)
    tables = 1 if before.config.tie_weights else 2
    assert growth.parameters_added == tables * (merged.vocab_size - 500) * before.config.emb_size
    assert steps == [(number + 1, steps[-1][1]) for number in range(len(steps))]
    assert steps[-1] == (len(steps), len(steps))


def test_the_report_is_plain_numbers_and_true(tmp_path, base, tokenizer, merged):
    growth = grown(tmp_path / "out", base, tokenizer, merged, proof_tokens=200)
    assert abs(growth.english_after - growth.english_before) <= growth.english_bound == 0.01
    assert list(growth.chinese_methods) == list(METHODS)
    assert growth.chinese_methods["mean_of_pieces"] == growth.chinese_after != growth.chinese_before
    assert len(set(growth.chinese_methods.values())) == len(METHODS)
    values = json.loads(json.dumps(growth.to_json()))
    assert values["embedding_new"]["least"] > 0
    assert values["chinese_methods"] == growth.chinese_methods
    # the same figures from the whole models and their logits
    for folder, chinese, english in (
        (base, growth.chinese_before, growth.english_before),
        (tmp_path / "out", growth.chinese_after, growth.english_after),
    ):
        for texts, expected in ((CHINESE, chinese), (ENGLISH, english)):
            model = load(folder, dtype="fp32", device="cpu")
            text = module.leading_text(texts, tokenizer, 200)
            ids = torch.tensor([[1, *model.tokenizer.encode(text)]])
            assert ids.shape[1] <= 257
            nats = -model.logits(ids)[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None]).sum().item()
            assert expected == pytest.approx(nats / math.log(2) / len(text.encode()), abs=1e-5)
    tensors = dict(open_model(tmp_path / "out", families).read())
    lengths = tensors[EMBEDDING].float().norm(dim=1)
    assert growth.embedding_old.mean == pytest.approx(lengths[:500].mean().item(), rel=1e-6)
    assert growth.embedding_new.greatest == pytest.approx(lengths[500:].max().item(), rel=1e-6)
    assert (growth.head_new is None) == (HEAD not in tensors)


def test_other_methods_give_what_growing_with_them_gives(tmp_path, base, tokenizer, merged):
    growth = grown(tmp_path / "out", base, tokenizer, merged)
    for method in ("weighted", "mean"):
        other = grown(tmp_path / method, base, tokenizer, merged, method=method)
        assert other.chinese_after == pytest.approx(growth.chinese_methods[method], abs=1e-9)
        assert other.chinese_methods == pytest.approx(growth.chinese_methods, abs=1e-9)


def test_a_head_of_its_own_method_is_measured_beside_the_others(tmp_path, base, tokenizer, merged):
    if open_model(base, families).config.tie_weights:
        with pytest.raises(CheckpointError, match="head is its embedding"):
            grown(tmp_path / "out", base, tokenizer, merged, head_method="mean")
        return
    growth = grown(tmp_path / "out", base, tokenizer, merged, head_method="mean")
    assert (growth.method, growth.head_method) == ("mean_of_pieces", "mean")
    assert growth.chinese_after not in growth.chinese_methods.values()


def test_rows_are_filled_up_in_native_folders_only(tmp_path, base, tokenizer, merged):
    growth = grown(tmp_path / "out", base, tokenizer, merged, pad_rows_to=64)
    assert (growth.rows_after, growth.vocab_padding) == (576, 576 - merged.vocab_size)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_padding"] == 576 - merged.vocab_size
    assert abs(growth.english_after - growth.english_before) <= 0.01
    convert(base, tmp_path / "hf", "huggingface", families)
    with pytest.raises(CheckpointError, match="pad_rows_to: .* is huggingface, which has no padding rows"):
        grown(tmp_path / "other", tmp_path / "hf", tokenizer, merged, pad_rows_to=64)


def test_an_english_loss_beyond_the_bound_is_refused_with_both_numbers(tmp_path, base, tokenizer, spm_path):
    pieces = [tokenizer.piece(index) for index in tokenizer.encode(" ".join(ENGLISH[:5]))]
    known = {tokenizer.piece(index) for index in range(500)}
    pairs = {one + other for one, other in pairwise(pieces)} - known
    letters = extend_spm(spm_path, tmp_path / "letters.model", [pair for pair in pairs if "▁" not in pair[1:]])
    with pytest.raises(CheckpointError, match=r"costs \d.\d{4} .* \d.\d{4} under its base; .*cuts this text otherwise"):
        grown(tmp_path / "out", base, tokenizer, letters)


def test_a_head_that_draws_probability_is_refused_with_advice(tmp_path, base, tokenizer, merged, monkeypatch):
    def loud(old, wanted):
        return (old[3:400].float().repeat(2, 1)[: len(block.counts)] * 30 for block in wanted.pieces.blocks())

    monkeypatch.setitem(METHODS, "random", loud)
    with pytest.raises(CheckpointError, match="draw too much probability; fewer of them"):
        grown(tmp_path / "out", base, tokenizer, merged, method="random")


@pytest.mark.parametrize("name", [EMBEDDING, "encoder.layer_norm", "encoder.transformer.1."])
def test_one_bit_that_changes_on_the_way_is_noticed(tmp_path, base, tokenizer, merged, monkeypatch, name):
    write = module.write_weights

    def damage(folder, source, to, dtype):
        def read():
            for own, tensor in source.read():
                if own.startswith(name):
                    tensor = tensor.clone()
                    tensor.view(-1).view(torch.int16)[5] ^= 1
                yield own, tensor

        write(folder, replace(source, read=read), to, dtype)

    monkeypatch.setattr(module, "write_weights", damage)
    with pytest.raises(CheckpointError, match=f"{name}.*reads back differently"):
        grown(tmp_path / "out", base, tokenizer, merged)


def test_a_new_row_that_is_zero_or_no_number_is_refused(tmp_path, base, tokenizer, merged, monkeypatch):
    for value, expected in ((0.0, "a new row that is all zero"), (math.inf, "no finite numbers")):
        rows = lambda old, wanted, value=value: (torch.full((len(b.counts), old.shape[1]), value) for b in wanted.pieces.blocks())  # noqa: E501, E731
        monkeypatch.setitem(METHODS, "mean", rows)
        with pytest.raises(CheckpointError, match=expected):
            grown(tmp_path / str(value), base, tokenizer, merged, method="mean")


def test_a_base_that_holds_no_number_is_refused(tmp_path, base, tokenizer, merged):
    source = open_model(base, families)
    damaged = {name: tensor.clone() for name, tensor in source.read()}
    next(tensor for name, tensor in damaged.items() if "linear_layers.0" in name)[0, 0] = math.nan
    source = replace(source, read=lambda: iter(damaged.items()))
    with pytest.raises(CheckpointError, match="linear_layers.0.weight holds values that are no finite numbers"):
        grow_model(staged(tmp_path / "out", merged), source, tokenizer, merged, GrowthSettings(), ENGLISH, CHINESE, print)


def test_only_the_merged_tokenizer_may_lie_beside_the_new_weights(tmp_path, base, tokenizer, merged):
    source, settings = open_model(base, families), GrowthSettings()
    for number, content in enumerate((tokenizer.content, merged.content)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "tokenizer.model").write_bytes(content)
        if number:
            (base / "tokenizer.json").write_text("old")
            (folder / "tokenizer.json").write_text("old")
        try:
            with pytest.raises(CheckpointError, match=["is not .*merged", "is the old tokenizer"][number]):
                grow_model(folder, source, tokenizer, merged, settings, ENGLISH, CHINESE, print)
        finally:
            (base / "tokenizer.json").unlink(missing_ok=True)
        assert not (folder / "config.json").exists()


def test_the_manifest_names_parents_and_tokenizers(tmp_path, base, tokenizer, merged):
    source = open_model(base, families)
    grown(tmp_path / "out", base, tokenizer, merged)
    write_manifest(tmp_path / "out", KIND, manifest_of(source, tokenizer, merged, GrowthSettings()))
    values = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert values["source"]["fingerprint"] == source.fingerprint()
    assert values["tokenizer"] == {"base_sha256": tokenizer.sha256, "sha256": merged.sha256}
    assert values["growth"]["method"] == "mean_of_pieces"
    assert open_model(tmp_path / "out", families).config.rows == merged.vocab_size
    assert load(tmp_path / "out").generate(["第一条"], max_new_tokens=3)


def test_proof_tokens_must_be_above_zero():
    with pytest.raises(ConfigError, match="proof_tokens is 0"):
        GrowthSettings(proof_tokens=0)
