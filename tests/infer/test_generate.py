import json

import pytest
import torch
from conftest import LLAMA, command, tiny

from tp_ext.checkpoint.formats import write_trained
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.infer import load
from tp_ext.infer.generate import _choose, _penalize
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight


def folder_of(path, tokenizer, rows=None, padding=0):
    """A model folder with random weights large enough to have an opinion."""
    config = tiny(LLAMA, vocab_size=rows or tokenizer.vocab_size, vocab_padding=padding, local_kv_heads_num=2)
    names = dict(build(config).named_parameters())
    weights = ((name, initial_weight(name, value.shape, config, 5) * 4) for name, value in names.items())
    path.mkdir()
    write_trained(path, config, families, weights, torch.float32, tokenizer, {})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    return load(folder_of(tmp_path_factory.mktemp("model") / "m", tokenizer))


PROMPTS = ["第一条 国务院", "the module returns a new list of values", "x"]


def test_logits_are_float32_of_every_token(model):
    logits = model.logits(torch.tensor([[1, 5, 9], [1, 7, 0]]), attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))
    assert logits.dtype == torch.float32
    assert logits.shape == (2, 3, 500)
    alone = model.logits(torch.tensor([[1, 7]]))
    assert (logits[1, :2] - alone[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_p": 0.8, "seed": 3}, {"repetition_penalty": 1.3}])
def test_cached_and_uncached_text_agree(model, settings):
    cached = model.generate(PROMPTS, max_new_tokens=20, **settings)
    assert cached == model.generate(PROMPTS, max_new_tokens=20, use_cache=False, **settings)
    assert any(cached)


def test_a_batch_gives_what_each_prompt_gives_alone(model):
    together = model.generate(PROMPTS, max_new_tokens=20)
    assert together == [model.generate([prompt], max_new_tokens=20)[0] for prompt in PROMPTS]


def test_sampling_follows_its_seed(model):
    first = model.generate(PROMPTS, max_new_tokens=20, temperature=1.5, seed=1)
    assert first == model.generate(PROMPTS, max_new_tokens=20, temperature=1.5, seed=1)
    assert first != model.generate(PROMPTS, max_new_tokens=20, temperature=1.5, seed=2)


def test_a_stream_is_told_token_by_token_and_is_what_generate_gives(model):
    for prompt in PROMPTS:
        settings = {"max_new_tokens": 20, "temperature": 1.0, "seed": 4}
        pieces = list(model.stream(prompt, **settings))
        assert "".join(pieces) == model.generate([prompt], **settings)[0]
        assert 1 < len(pieces) <= 20
        ids = [model.tokenizer.bos_id, *model.tokenizer.encode(prompt)]
        assert list(model.stream(ids, **settings)) == pieces
    with pytest.raises(ConfigError, match="a prompt is at least one id, from 0 to 499"):
        model.stream([500])


def drawn(model, count=40):
    """Ids drawn almost evenly from all that may be."""
    ids = torch.tensor([[1, 5]] * 40)
    steps = model._steps(ids, torch.ones_like(ids).bool(), count, 100.0, 1.0, 0, 1.0, 0, True)
    return [token for step in steps for token in step if token is not None]


@pytest.mark.parametrize("padding", [0, 12])
def test_rows_that_only_fill_up_are_never_generated(tmp_path, tokenizer, padding):
    model = load(folder_of(tmp_path / "m", tokenizer, rows=512, padding=padding))
    with torch.no_grad():
        model.model.target.lm.output_layer.weight[500:] *= 100
    assert len(drawn(model)) > 500
    assert max(drawn(model)) < 500
    assert bool(torch.isinf(model.logits(torch.tensor([[1, 5]]))[..., 500:]).all()) == bool(padding)
    expected = "the model has rows 0 to 499" if padding else "the model has rows 0 to 511"
    with pytest.raises(ConfigError, match=expected):
        model.logits(torch.tensor([[512]]))


def test_special_pieces_but_the_end_of_text_are_never_generated(tmp_path, merged):
    model = load(folder_of(tmp_path / "m", merged))
    specials = merged.special_ids
    assert len(specials) == 4
    found = set(drawn(model, 60))
    assert len(found) > 300
    assert not found & specials
    never = model._never_chosen()
    assert set(never.nonzero().flatten().tolist()) == specials - {merged.eos_id}


def test_the_end_of_text_ends_a_text(model):
    ids = torch.tensor([[1, 5]])
    eos = model.tokenizer.eos_id
    likeliest = int(model.logits(ids)[0, -1].argmax())
    assert likeliest != eos
    model.tokenizer.eos_id = likeliest
    try:
        assert list(model._steps(ids, torch.ones_like(ids).bool(), 5, 0.0, 1.0, 0, 1.0, 0, True)) == [[None]]
    finally:
        model.tokenizer.eos_id = eos


def test_top_k_and_top_p_leave_what_they_say():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)
    assert set(_choose(logits, 1.0, 1.0, 2, generator).tolist()) == {0, 1}
    assert set(_choose(logits, 1.0, 0.75, 0, generator).tolist()) == {0, 1}
    assert set(_choose(logits, 1.0, 0.81, 0, generator).tolist()) == {0, 1, 2}
    assert set(_choose(logits, 0, 1.0, 0, generator).tolist()) == {0}
    counts = torch.bincount(_choose(logits, 1.0, 1.0, 0, generator)) / 4000
    assert (counts - torch.tensor([0.5, 0.3, 0.15, 0.05])).abs().max() < 0.03


def test_a_repetition_penalty_is_of_seen_tokens_only():
    logits = torch.tensor([[2.0, -2.0, 2.0, 5.0]])
    _penalize(logits, torch.tensor([[3, 0, 1]]), torch.tensor([[False, True, True]]), 2.0)
    assert logits.tolist() == [[1.0, -4.0, 2.0, 5.0]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prompts": []}, "at least one text"),
        ({"prompts": "text"}, "at least one text"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_p": 0}, "top_p is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 10000}, "the model was made for 256"),
    ],
)
def test_settings_that_cannot_be_are_refused(model, settings, expected):
    with pytest.raises(ConfigError, match=expected):
        model.generate(**{"prompts": ["a"], **settings})


def test_ids_without_a_row_are_refused(model):
    with pytest.raises(ConfigError, match="ids run from 0 to 500; the model has rows 0 to 499"):
        model.logits(torch.tensor([[0, 500]]))


def test_the_old_tokenizer_beside_grown_weights_is_refused(tmp_path, tokenizer):
    with pytest.raises(CheckpointError, match="the embedding has 530 rows .* is this the old tokenizer"):
        load(folder_of(tmp_path / "m", tokenizer, rows=530))


def test_the_command_prints_and_writes_each_text(tmp_path, tokenizer):
    path = folder_of(tmp_path / "m", tokenizer)
    output = tmp_path / "samples.txt"
    done = command("scripts/generate.py", "--model", path, "--prompt", *PROMPTS, "--max_new_tokens", 8, "--output", output)
    assert done.returncode == 0, done.stderr
    expected = [f"{p}|{t}" for p, t in zip(PROMPTS, load(path).generate(PROMPTS, max_new_tokens=8), strict=True)]
    assert output.read_text(encoding="utf-8") == "\n\n".join(expected) + "\n"
    assert done.stdout.startswith("\n\n".join(expected))
    done = command("scripts/generate.py", "--model", tmp_path / "absent", "--prompt", "a")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/absent: no such model\n")


def test_a_config_that_is_no_json_is_one_line(tmp_path, tokenizer):
    path = folder_of(tmp_path / "m", tokenizer)
    (path / "config.json").write_text(json.dumps({"emb_size": 64})[:-3])
    with pytest.raises(ConfigError, match="config.json: line 1, column"):
        load(path)
