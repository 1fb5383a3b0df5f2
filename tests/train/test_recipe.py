import json

import pytest
import torch
from conftest import ROOT

from tp_ext.errors import RecipeError
from tp_ext.models import build
from tp_ext.train.derived import deepspeed_settings
from tp_ext.train.inputs import config_of_recipe
from tp_ext.train.recipe import parse_recipe, read_recipe

RECIPES = [path for path in sorted((ROOT / "recipes").glob("*.json")) if not path.name.startswith("clean")]
PARAMETERS = {"llama7b_zh": 6_738_415_616, "llama13b_zh": 13_015_864_320, "bloom7b1_zh": 7_069_016_064}


def sources(name="zh", **changes):
    return {name: {"dataset_path": "x", "weight": 1, **changes}}


MIXED = {"data__dataset_path": None, "data__sources": sources()}


def test_the_promised_recipes_are_there():
    names = {path.stem for path in RECIPES}
    assert names >= {"llama_tiny_zh", "bloom_tiny_zh", "llama7b_zh", "llama13b_zh", "bloom7b1_zh"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_its_model_can_be_built(path):
    recipe = read_recipe(path)
    config = config_of_recipe(recipe)
    if config is None:  # it takes the model that another recipe has trained
        parent = "llama_tiny_en"
        assert recipe.model.pretrained_model_path == f"outputs/{parent}_extended"  # as scripts/demo.sh calls it
        config = config_of_recipe(read_recipe(ROOT / "recipes" / f"{parent}.json"))
    config = config.replace(vocab_size=config.vocab_size or 6000)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build(config).parameters())
    assert parameters == PARAMETERS.get(path.stem, parameters)
    assert recipe.data.seq_length <= config.max_seq_length
    for world_size in (1, 2, 8):
        if recipe.train.global_batch_size % (recipe.train.micro_batch_size * world_size) == 0:
            settings = deepspeed_settings(recipe, world_size)
            assert settings["train_batch_size"] == recipe.train.global_batch_size


def test_deepspeeds_configuration_is_derived(recipe):
    values = recipe(train__dtype="bf16", parallel__zero=3, parallel__offload="all", parallel__deepspeed={
        "zero_optimization": {"reduce_bucket_size": 1000}, "communication_data_type": "fp32"})  # fmt: skip
    settings = deepspeed_settings(parse_recipe(values), shares=2)
    assert settings["gradient_accumulation_steps"] == 2
    assert settings["gradient_clipping"] == 1.0
    assert settings["bf16"] == {"enabled": True, "check_grad_overflow": True}
    assert settings["zero_optimization"]["stage"] == 3
    assert settings["zero_optimization"]["reduce_bucket_size"] == 1000
    assert settings["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert settings["communication_data_type"] == "fp32"


def test_a_misspelt_setting_is_told_with_its_path_and_nearest_name(recipe):
    values = recipe(train__learning_rte=1e-4, trian__x=1)
    with pytest.raises(RecipeError) as error:
        parse_recipe(values)
    assert "recipe.train: no setting named 'learning_rte'. Did you mean 'learning_rate'?" in str(error.value)
    assert "recipe: no setting named 'trian'. Did you mean 'train'?" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__total_steps": None}, "train: give one of total_steps and epochs"),
        ({"train__epochs": 1.0}, "train: give one of total_steps and epochs"),
        ({"train__warmup": 8}, "warmup: 8 steps do not fit into total_steps 8"),
        ({"train__warmup": 2.5}, "warmup: 2.5 is neither a share below 1 nor a whole number"),
        ({"train__micro_batch_size": 3}, "global_batch_size: 8 is not a multiple of micro_batch_size 3"),
        ({"train__scheduler": "cosin"}, "scheduler: 'cosin' is not one of constant, linear, cosine"),
        ({"train__min_learning_rate": 1.0}, "min_learning_rate: 1.0 is above learning_rate 0.01"),
        ({"train__learning_rate": "1e-4"}, 'train.learning_rate: expected a number, found "1e-4"'),
        ({"train__learning_rate": -1}, "train.learning_rate: is -1"),
        ({"train__beta2": 1.0}, "train.beta2: is 1.0"),
        ({"train__dtype": "float16"}, "train.dtype: 'float16' is not one of 'fp32', 'bf16', 'fp16'"),
        ({"train__global_batch_size": 0}, "train.global_batch_size: is 0"),
        ({"train__total_steps": True}, "train.total_steps: expected a whole number, found true"),
        ({"parallel__zero": 4}, "parallel.zero: 4 is not one of 0, 1, 2, 3"),
        ({"parallel__offload": "all"}, "parallel.offload: 'all' needs zero 3, found zero 1"),
        ({"parallel__zero": 0, "train__dtype": "bf16"}, "parallel.zero: 0 with train.dtype bf16"),
        ({"parallel__deepspeed": {"bf16": {}}}, "parallel.deepspeed: bf16: decided by the recipe's own settings"),
        ({"model__size": "llama-7b"}, "model: give one of size and config"),
        ({"model__config": None}, "model: give size, config_path or config"),
        ({"data__seq_length": 0}, "data.seq_length: is 0"),
        ({"train__warmup": float("nan")}, "train.warmup: expected a finite number"),
        ({"train__learning_rate": 10**400}, "train.learning_rate: expected a finite number"),
        ({"parallel__deepspeed": {"zero_optimization": {"stage": 3}}}, "parallel.deepspeed.zero_optimization: an object"),
        ({"evaluate__datasets": {"a b": "x"}}, "evaluate.datasets: 'a b' is not a name"),
        ({"data__dataset_path": None}, "data: give one of dataset_path and sources, not none"),
        ({"data__sources": sources()}, "data: give one of dataset_path and sources, not both"),
        ({**MIXED, "data__sources": sources(weight=0)}, "data.sources.zh.weight: is 0.0; it must be above 0, or leave"),
        ({**MIXED, "data__sources": {"zh": {"dataset_path": "x"}}}, "recipe.data.sources.zh: 'weight' is missing"),
        ({**MIXED, "data__sources": sources(path="x")}, "zh: no setting named 'path'. Known: dataset_path, weight."),
        ({**MIXED, "data__sources": sources("a b")}, "data.sources: 'a b' is not a name"),
        ({**MIXED, "train__epochs": 1.0, "train__total_steps": None}, "train.epochs: data.sources end at different times"),
        ({"data__packing": "bestfit"}, "data.packing: 'bestfit' is not one of 'contiguous', 'document', 'best_fit'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(recipe, changes, expected):
    with pytest.raises(RecipeError) as error:
        parse_recipe(recipe(**changes))
    assert expected in str(error.value)


def test_all_problems_come_at_once(recipe):
    with pytest.raises(RecipeError) as error:
        parse_recipe(recipe(train__warmup=8, train__beta1=2.0, parallel__offload="all"))
    assert len(str(error.value).splitlines()) == 3


def test_overrides_change_single_settings(recipe, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recipe()))
    overrides = ["train.learning_rate=1e-4", "train.resume=never", "log.wandb_project=zh", "model.config.layers_num=3",
                 'evaluate.datasets={"a": "b"}']  # fmt: skip
    found = read_recipe(path, overrides)
    assert (found.train.learning_rate, found.train.resume, found.log.wandb_project) == (1e-4, "never", "zh")
    assert found.model.config["layers_num"] == 3
    assert found.evaluate.datasets == {"a": "b"}
    with pytest.raises(RecipeError) as error:
        read_recipe(path, ["learning_rate=3", "train.lr=1", "train.seed.x=1", "nonsense"])
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "line 1, column 2: not JSON"),
        ("[]", "expected a JSON object"),
        ('{"train": {"seed": 1, "seed": 2}}', "the key 'seed' is given twice"),
    ],
)
def test_a_file_that_is_no_recipe_is_told(tmp_path, content, expected):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(RecipeError, match=expected):
        read_recipe(tmp_path / "r.json")


def test_a_batch_that_does_not_divide_names_ones_that_do(recipe):
    with pytest.raises(RecipeError, match="multiple of micro_batch_size 2 x 3 processes; 6 or 12 would be"):
        parse_recipe(recipe()).accumulation_steps(3)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_was_kept_differs_in_nothing_from_itself(path):
    values = read_recipe(path).to_json()
    assert json.loads(json.dumps(values)) == values
