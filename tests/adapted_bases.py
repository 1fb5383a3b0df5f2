"""Random models on disk that adapters are trained of, and recipes that do so."""

from conftest import make_texts
from models_on_disk import make_model, make_tokenizers

from tp_ext.checkpoint.formats import open_model, write_model
from tp_ext.data.preprocess import preprocess
from tp_ext.models import families

BOTH = ["embedding", "lm_head"]
ALL = {"llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
       "bloom": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]}  # fmt: skip
STEPS = 6


def make_bases(folder, corpus, rows):
    """By shape the folder of a model, its tokenizer, and data tokenized for it, to train and to measure on. `rows` says of
    each shape of what number its rows are to be a multiple; those that are added stand for nothing."""
    held_out = folder / "held_out.txt"
    held_out.write_text("\n".join(make_texts(20, 2)) + "\n", encoding="utf-8")
    made = {}
    for kind, tokenizer in make_tokenizers(folder, corpus).items():
        shapes = [shape for shape in rows if ("bloom" in shape) == (kind == "bloom")]
        if shapes:
            preprocess([corpus], tokenizer, folder / f"data_{kind}", 32)
            preprocess([held_out], tokenizer, folder / f"held_out_{kind}", 32)
        for shape in shapes:
            model = make_model(folder / shape, shape, tokenizer)
            if rows[shape] > 1:
                padded = open_model(model, families).padded(rows[shape])
                model = folder / f"padded_{shape}"
                model.mkdir()
                write_model(model, padded, "native", padded.dtype)
            made[shape] = model, tokenizer.path, folder / f"data_{kind}", folder / f"held_out_{kind}"
    return made


def sections(bases, shape):
    """What a recipe needs to begin with the base of that shape."""
    base, tokenizer, data, held_out = bases[shape]
    return {"model__config": None, "model__pretrained_model_path": str(base), "model__spm_model_path": str(tokenizer),
            "data__dataset_path": str(data), "evaluate__datasets": {"text": str(held_out)}}  # fmt: skip


def adapting(recipe, bases):
    """A maker of recipes that train an adapter of one of the `bases`."""

    def make(shape, **changes):
        family = "bloom" if "bloom" in shape else "llama"
        settings = {**sections(bases, shape), "evaluate__steps": STEPS, "train__total_steps": STEPS,
                    "train__save_checkpoint_steps": 3, "lora__target_modules": ALL[family], "lora__r": 4,
                    "lora__alpha": 6}  # fmt: skip
        return recipe(**{**settings, **changes})

    return make
