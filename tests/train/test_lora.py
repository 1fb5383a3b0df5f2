"""LoRA: what is trained, what a checkpoint holds, what is left at the end, and that others compute the same with it."""

import json

import pytest
import torch
from adapted_bases import ALL, BOTH, adapting, make_bases
from conftest import BLOOM, LLAMA, command, metrics, pretrain, tiny
from models_on_disk import tensors

from tp_ext.checkpoint.adapters import merged, open_adapter
from tp_ext.checkpoint.containers.torch_file import read_values
from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.inspect import inspect
from tp_ext.checkpoint.shards import axis_of
from tp_ext.checkpoint.source import EMBEDDING, HEAD
from tp_ext.errors import RecipeError
from tp_ext.infer import load
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.nn.lora import LoraLinear
from tp_ext.nn.loss import linear_cross_entropy
from tp_ext.train.lora import adapt, adapted_of, counts_of
from tp_ext.train.moved import Moved
from tp_ext.train.recipe import LoraSection, parse_recipe


@pytest.fixture(scope="module")
def bases(tmp_path_factory, corpus):
    """Of one the head is its embedding, and it has rows that stand for nothing."""
    rows = {"groups": 1, "tied": 64, "bloom": 1, "bloom_untied": 1}
    return make_bases(tmp_path_factory.mktemp("bases"), corpus, rows)


@pytest.fixture
def lora(bases, recipe):
    return adapting(recipe, bases)


def run(values, folder, *overrides, processes=0):
    done = pretrain(values, folder, *overrides, processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(folder, *names):
    return [(folder / name).read_bytes() for name in names]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("target", ["linear_layers.0", "self_attn.linear_layers.0", "q_proj", "self_attn.q_proj", "wq"])
def test_a_layer_is_known_by_its_names_anywhere(target):
    found = adapted_of(LoraSection(target_modules=(target,)), tiny(LLAMA)).layers
    assert found == tuple(f"encoder.transformer.{i}.self_attn.linear_layers.0" for i in range(2))


def test_a_name_can_stand_for_several_layers_or_for_one():
    query_key_value = [f"encoder.transformer.0.self_attn.linear_layers.{which}" for which in range(3)]
    for config, target in ((tiny(BLOOM), "query_key_value"), (tiny(LLAMA), "linear_layers")):
        assert list(adapted_of(LoraSection(target_modules=(target,)), config).layers[:3]) == query_key_value
    one = "encoder.transformer.1.feed_forward.linear_1"
    assert adapted_of(LoraSection(target_modules=(one,)), tiny(BLOOM)).layers == (one,)
    default = adapted_of(LoraSection(), tiny(LLAMA)).layers
    assert [name[-1] for name in default] == ["0", "2"] * 2  # query and value, as in TencentPretrain


@pytest.mark.parametrize(("family", "section", "expected"), [
    (LLAMA, {"target_modules": ("qproj",)}, "no linear layer called 'qproj'. Did you mean 'q_proj'?"),
    (BLOOM, {"target_modules": ("q_proj",)}, "called 'q_proj'. Known: dense, dense_4h_to_h, "),
    (LLAMA, {"target_modules": ("0",)}, "called '0'"),
    (LLAMA, {"target_modules": ("layer_norm_1",)}, "called 'layer_norm_1'"),
    (LLAMA, {"target_modules": ("lm_head",)}, "lm_head is trained whole, not by factors; name it in also_train"),
    (BLOOM, {"also_train": ("lm_head",)}, "also_train: lm_head alone: the model's lm_head is its embedding (tie_weights)"),
    (BLOOM, {"also_train": ("embedding",)}, "also_train: embedding alone: the model's lm_head is its embedding"),
])  # fmt: skip
def test_names_that_a_model_does_not_have_are_refused(family, section, expected):
    with pytest.raises(RecipeError) as error:
        adapted_of(LoraSection(**section), tiny(family))
    assert expected in str(error.value) and str(error.value).startswith("recipe.lora.")


@pytest.mark.parametrize(("section", "expected"), [
    ({"r": 0}, "lora.r: is 0"), ({"alpha": 0}, "lora.alpha: is 0"), ({"dropout": 1.0}, "lora.dropout: is 1.0"),
    ({"target_modules": []}, "lora.target_modules: name at least one"), ({"rank": 8}, "lora: no setting named 'rank'"),
    ({"also_train": ["norm"]}, "lora.also_train[0]: 'norm' is not one of 'embedding', 'lm_head'"),
    ({}, "model.pretrained_model_path: is missing; LoRA changes a model that has learned something"),
])  # fmt: skip
def test_what_cannot_be_is_refused(recipe, section, expected):
    with pytest.raises(RecipeError) as error:
        parse_recipe({**recipe(), "lora": section})
    assert f"recipe.{expected}" in str(error.value)


def adapted_model(config, section):
    model = build(config)
    adapted = adapted_of(section, config)
    adapt(model, adapted)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(initial_weight(name, parameter.shape, config, 1))
    return model, adapted


@pytest.mark.parametrize("changes", [{}, {"local_kv_heads_num": 2}, {"tie_weights": True}])
def test_parameters_are_counted_and_a_fresh_adapter_changes_nothing(changes):
    config = tiny(LLAMA, **changes)
    section = LoraSection(r=3, target_modules=("q_proj", "k_proj", "down_proj"), also_train=("embedding", "lm_head"))
    model, _ = adapted_model(config, section)
    heads = config.kv_heads * config.head_size
    factors = 2 * 3 * ((64 + 64) + (64 + heads) + (96 + 64))  # two layers, rank 3
    tables = 101 * 64 * (1 if config.tie_weights else 2)
    counts = counts_of(config, section)
    assert counts.trained == factors + tables
    assert counts.all == factors + counts_of(config, None).all
    assert counts.multiplied == counts.all - counts.trained
    plain = build(config)
    for name, parameter in plain.named_parameters():
        parameter.data.copy_(initial_weight(name, parameter.shape, config, 1))
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids), plain(ids))
    first = dict(model.named_parameters())["encoder.transformer.0.feed_forward.linear_2.lora_A"]
    assert 0.9 < first.abs().max() * 96**0.5 <= 1


def test_the_gradient_is_that_of_the_merged_weight():
    torch.manual_seed(1)
    linear = torch.nn.Linear(6, 5)
    layer = LoraLinear(linear, 2, 1.5, 0.0)
    torch.nn.init.normal_(layer.lora_A), torch.nn.init.normal_(layer.lora_B)
    given = torch.randn(4, 6)
    weight = linear.weight + 1.5 * layer.lora_B @ layer.lora_A
    expected = torch.nn.functional.linear(given, weight, linear.bias)
    assert torch.allclose(layer(given), expected, atol=1e-6)
    grads = [torch.autograd.grad(each.square().sum(), (layer.lora_A, layer.lora_B), retain_graph=True)
             for each in (layer(given), expected)]  # fmt: skip
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(*grads, strict=True))


def test_a_frozen_head_gets_no_gradient_and_hidden_states_get_the_same():
    torch.manual_seed(1)
    hidden, weight, targets = torch.randn(7, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True), torch.arange(7)
    (expected,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), hidden)
    (found,) = torch.autograd.grad(linear_cross_entropy(hidden, weight.detach(), targets), hidden)
    assert torch.equal(found, expected)


def test_every_factor_has_its_cut():
    section = LoraSection(target_modules=tuple(ALL["llama"]))
    model, _ = adapted_model(tiny(LLAMA), section)
    factors = [name for name, each in model.named_parameters() if each.requires_grad]
    cut = {name.split(".", 3)[3]: axis_of(name) for name in factors}
    rows = ("self_attn.linear_layers.", "feed_forward.linear_gate", "feed_forward.linear_1")
    columns = ("final_linear", "linear_2")
    for name, axis in cut.items():
        if name.startswith(rows):
            assert axis == (0 if name.endswith("lora_B") else None)
        elif name.split(".")[1] in columns:
            assert axis == (1 if name.endswith("lora_A") else None)
    assert len(cut) == 14


class Alone:
    """The only process."""

    def gathered(self, value):
        return [value]


def wrong_layer(model):
    first, _, third = model.encoder.transformer[1].self_attn.linear_layers
    first.forward = third.forward


def detached_embedding(model):
    table = model.embedding.word.embedding.weight
    model.embedding.word.forward = lambda ids: table.detach()[ids]


def changed_norm(model):
    def change(*_):
        model.encoder.layer_norm.weight.data.mul_(1.01)

    model.target.register_forward_hook(change)


def step_of(model, processes=None):
    """A function that makes a step of training and has it looked at; `spoil` changes gradients before."""
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1)
    moved = Moved(model, optimizer, processes or Alone())
    ids = torch.randint(0, 101, (2, 16), generator=torch.Generator().manual_seed(1))

    def step(number, spoil=lambda: None):
        moved.begin()
        model(ids[:, :-1], ids[:, 1:]).backward()
        spoil()
        optimizer.step()
        optimizer.zero_grad()
        moved.end(number, was_made=True)

    return step


@pytest.mark.parametrize(("damage", "expected"), [
    (wrong_layer, "encoder.transformer.1.self_attn.linear_layers.0.lora_B should be trained, but got no gradient"),
    (detached_embedding, "embedding.word.embedding.weight should be trained, but got no gradient"),
    (changed_norm, "encoder.layer_norm.weight should stay as in the base, but changed"),
])  # fmt: skip
def test_what_did_not_move_or_should_not_have_is_named(damage, expected):
    model, _ = adapted_model(tiny(LLAMA), LoraSection(also_train=("embedding",)))
    damage(model)
    with pytest.raises(RecipeError) as error:
        step_of(model)(1)
    assert expected in str(error.value) and str(error.value).startswith("step 1: recipe.lora: ")


class Beside(Alone):
    """One of two processes; the other has another part of the embedding, which moved."""

    def gathered(self, value):
        return [value, (True, [])]


def test_a_part_of_the_embedding_may_have_no_row_in_a_batch():
    model, _ = adapted_model(tiny(LLAMA), LoraSection(also_train=("embedding",)))
    detached_embedding(model)
    step_of(model, Beside())(1)
    wrong_layer(model)
    with pytest.raises(RecipeError) as error:
        step_of(model, Beside())(1)
    assert "lora_B should" in str(error.value) and EMBEDDING not in str(error.value)


def test_a_factor_that_only_decay_moves_in_the_second_step_is_named():
    model, _ = adapted_model(tiny(LLAMA), LoraSection())
    step = step_of(model)
    step(1)

    def spoil():
        for name, parameter in model.named_parameters():
            if name.endswith("1.self_attn.linear_layers.2.lora_A"):
                parameter.grad.zero_()

    with pytest.raises(RecipeError) as error:
        step(2, spoil)
    assert str(error.value) == ("step 2: recipe.lora: encoder.transformer.1.self_attn.linear_layers.2.lora_A should be "
                                "trained, but got no gradient")  # fmt: skip


def test_steps_in_which_all_moves_pass():
    model, _ = adapted_model(tiny(BLOOM), LoraSection(target_modules=("query_key_value",)))
    step = step_of(model)
    for number in (1, 2, 3):
        step(number)


@pytest.mark.parametrize("shape", ["bloom", slow("tied"), slow("groups"), slow("bloom_untied")])
def test_from_training_to_adapter_merge_and_generation(lora, tmp_path, bases, shape):
    """The story that docs/training.md tells: the adapter of a run, merged, is the model that the run measured."""
    output = run(lora(shape, lora__also_train=BOTH, lora__merge=True), tmp_path)
    out, base = tmp_path / "out", bases[shape][0]
    losses = metrics(out, "loss")
    assert losses[-1] < losses[0]
    assert "of them trained)" in output and f"{out}/adapter_peft\n" in output
    # a checkpoint holds what is trained, once: no weight of the base
    state = read_values(out / "checkpoints" / "step_00000006" / "engine" / "mp_rank_00_model_states.pt")
    trained = {EMBEDDING} | (set() if open_model(base, families).config.tie_weights else {HEAD})
    assert {name for name in state["module"] if "lora_" not in name} == trained
    # merged by the run, from the adapter in both forms, and from the checkpoint: the same weights
    expected, before = tensors(out / "model"), tensors(base)
    for number, source in enumerate((out / "adapter", out / "adapter_peft", out / "checkpoints" / "step_00000006")):
        target = tmp_path / f"merged{number}"
        done = command("scripts/convert_weights.py", "--input", source, "--base", base, "--output", target, "--to", "native")
        assert done.returncode == 0, done.stderr
        found, pieces = tensors(target), open_model(base, families).config.pieces
        for name, tensor in expected.items():
            rows = pieces if name in (EMBEDDING, HEAD) else None
            assert torch.equal(found[name][:rows], tensor[:rows]), name
            assert torch.equal(before[name], tensor) == (name not in trained and not _is_adapted(name)), name
    # what was measured in training is what the merged model gives
    values = lora(shape)
    values["model"]["pretrained_model_path"] = str(tmp_path / "merged0")
    values["train"] = {**values["train"], "output_model_path": str(tmp_path / "again"), "total_steps": 1, "warmup": 0}
    run(values, tmp_path)
    assert metrics(tmp_path / "again", "text_loss")[0] == pytest.approx(metrics(out, "text_loss")[-1], abs=1e-5)
    done = command("scripts/generate.py", "--model", tmp_path / "merged0", "--prompt", "第一条", "--max_new_tokens", 5)
    assert done.returncode == 0, done.stderr


def _is_adapted(name):
    return name.endswith("weight") and ("linear" in name) and "norm" not in name


@pytest.mark.frontends
@pytest.mark.parametrize(("shape", "also"), [
    ("groups", BOTH), ("bloom", []), slow("groups", []), slow("bloom", BOTH), *(slow("tied", each) for each in ([], BOTH)),
    *(slow("bloom_untied", each) for each in ([], BOTH)),
])  # fmt: skip
def test_peft_computes_what_was_trained(lora, tmp_path, bases, shape, also):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    run(lora(shape, lora__also_train=also, train__total_steps=3, evaluate__datasets={}, lora__merge=True), tmp_path)
    base = bases[shape][0]
    convert(base, tmp_path / "hf", "huggingface", families)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager")
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "out" / "adapter_peft").eval()
    ids = torch.randint(490, (2, 30), generator=torch.Generator().manual_seed(2))
    pieces = open_model(base, families).config.pieces
    expected = load(tmp_path / "out" / "model").logits(ids)[..., :pieces]
    with torch.no_grad():
        assert (theirs(ids).logits - expected).abs().max() <= 1e-4
    assert (load(base).logits(ids)[..., :pieces] - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("zero", "also"), [
    (1, BOTH), (3, []), *(slow(*each) for each in ((0, []), (0, BOTH), (1, []), (2, []), (2, BOTH), (3, BOTH))),
])  # fmt: skip
def test_two_processes_train_what_one_does_and_go_on_to_the_same_bits(lora, tmp_path, zero, also):
    shape = "tied" if zero % 2 else "groups"
    values = lora(shape, parallel__zero=zero, lora__also_train=also, model__checkpoint_activations=zero > 1)
    run(lora(shape, lora__also_train=also, train__output_model_path=str(tmp_path / "alone")), tmp_path)
    run(values, tmp_path, processes=2)
    for name in ("loss", "grad_norm", "text_loss"):
        expected, found = metrics(tmp_path / "alone", name), metrics(tmp_path / "out", name)
        assert found == pytest.approx(expected, abs=1e-4), name
    names = ("adapter/lora.bin", "adapter_peft/adapter_model.safetensors")
    before = content(tmp_path / "out", *names)
    last = tmp_path / "out" / "checkpoints" / "step_00000006"
    last.rename(last.with_name("old"))
    output = run(values, tmp_path, processes=2)
    assert "resuming at step 3" in output
    assert content(tmp_path / "out", *names) == before


def test_dropout_bf16_and_accumulation_go_on_to_the_same_bits(lora, tmp_path):
    values = lora("groups", lora__dropout=0.2, train__dtype="bf16", lora__also_train=BOTH)
    run(values, tmp_path)
    before = content(tmp_path / "out", "adapter/lora.bin")
    last = tmp_path / "out" / "checkpoints" / "step_00000006"
    last.rename(last.with_name("old"))
    run(values, tmp_path)
    assert content(tmp_path / "out", "adapter/lora.bin") == before
    kept = torch.load(tmp_path / "out" / "adapter" / "lora.bin", weights_only=True)
    assert {each.dtype for each in kept.values()} == {torch.bfloat16}


def test_another_base_or_another_lora_is_refused(lora, tmp_path, bases):
    values = lora("groups", train__total_steps=3, evaluate__datasets={})
    run(values, tmp_path)
    for override, expected in (("lora.r=2", "lora.r 4 there, 2 here"), ("lora.alpha=1", "lora.alpha 6.0 there, 1.0 here"),
                               ('lora.also_train=["embedding"]', "lora.whole [] there")):  # fmt: skip
        done = pretrain(values, tmp_path, override, "train.total_steps=5")
        assert done.returncode == 2 and expected in done.stderr, done.stderr
    base = tmp_path / "base"
    base.mkdir()
    for file in bases["groups"][0].iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    changed = bytearray((base / "model.safetensors").read_bytes())
    changed[len(changed) // 2] ^= 1
    (base / "model.safetensors").write_bytes(changed)
    done = pretrain(values, tmp_path, f"model.pretrained_model_path={base}", "train.total_steps=5")
    assert done.returncode == 2 and "belongs to another run: pretrained " in done.stderr
    checkpoint = tmp_path / "out" / "checkpoints" / "step_00000003"
    found = inspect(checkpoint, families, hashes=True)
    assert found.problems == [] and "rank 4" in found.facts["adapter"] and found.facts["format"].startswith("training: ")
    done = command("scripts/convert_weights.py", "--input", checkpoint, "--output", tmp_path / "x", "--to", "native")
    assert done.returncode == 2 and "is an adapter; name the model it belongs to with --base" in done.stderr


def test_the_plan_counts_what_is_trained(lora, tmp_path, bases):
    (tmp_path / "recipe.json").write_text(json.dumps(lora("groups")))
    done = command("scripts/plan.py", "--config", tmp_path / "recipe.json", "--gpus", 0, "--gpu-memory", "4G")
    assert done.returncode == 0, done.stderr
    counts = counts_of(open_model(bases["groups"][0], families).config, LoraSection(r=4, target_modules=tuple(ALL["llama"])))
    assert f"{counts.all:,} parameters, {counts.trained:,} of them trained (LoRA)" in done.stdout
    assert "GiB the adapter in two forms\n" in done.stdout


def test_an_adapter_is_merged_with_its_whole_weights(lora, tmp_path, bases):
    run(lora("groups", lora__also_train=["embedding"], train__total_steps=3, evaluate__datasets={}), tmp_path)
    base = open_model(bases["groups"][0], families)
    adapter = open_adapter(tmp_path / "out" / "adapter", base)
    found = dict(merged(base, adapter).read())
    kept = torch.load(tmp_path / "out" / "adapter" / "lora.bin", weights_only=True)
    assert torch.equal(found[EMBEDDING], kept[EMBEDDING]) and HEAD not in kept
    assert not (tmp_path / "out" / "model").exists()
