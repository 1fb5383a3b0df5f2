"""The whole way from text to a trained model with a byte-level tokenizer.json."""

import json

import pytest
from conftest import BLOOM, command, make_texts, pretrain
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tp_ext.data.store import DOCUMENTS, TOKENS, Store
from tp_ext.infer import load
from tp_ext.tokens.tokenizer import open_tokenizer

BESIDE = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}


@pytest.fixture(scope="module")
def base(corpus, tmp_path_factory):
    """A folder with a tokenizer.json, and beside it a file that names its special pieces."""
    folder = tmp_path_factory.mktemp("byte_level")
    library = Tokenizer(models.BPE())
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
    )  # fmt: skip
    library.train([str(corpus)], trainer)
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(BESIDE))
    return folder


def test_from_text_to_a_trained_model(base, corpus, recipe, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(make_texts(50, 5)), encoding="utf-8")
    for processes in (1, 2):
        done = command(
            "scripts/preprocess.py", "--corpus_path", corpus, other, "--spm_model_path", base / "tokenizer.json",
            "--dataset_path", tmp_path / str(processes), "--seq_length", "32", "--processes_num", processes,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    for name in (TOKENS, DOCUMENTS):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()

    tokenizer, store = open_tokenizer(base), Store(tmp_path / "1")
    first = corpus.read_text(encoding="utf-8").splitlines()[0]
    assert store.tokens[: store.documents[1]].tolist() == [0, *tokenizer.encode(first), 1]

    values = recipe(
        model__config=BLOOM, model__spm_model_path=str(base / "tokenizer.json"), data__dataset_path=str(tmp_path / "1"),
        evaluate__datasets={}, train__total_steps=3,
    )  # fmt: skip
    done = pretrain(values, tmp_path)
    assert done.returncode == 0, done.stderr
    model = load(tmp_path / "out" / "model")
    assert model.tokenizer.sha256 == tokenizer.sha256
    assert (model.tokenizer.bos_id, model.tokenizer.eos_id) == (0, 1)
    assert len(model.generate(["第一条 国务院"], max_new_tokens=4)) == 1


def test_other_special_pieces_than_the_datasets_are_refused(base, corpus, recipe, tmp_path):
    tokenizer = base / "tokenizer.json"
    done = command("scripts/preprocess.py", "--corpus_path", corpus, "--spm_model_path", tokenizer, "--dataset_path",
                   tmp_path / "data")  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "alone" / "tokenizer.json"
    alone.parent.mkdir()
    alone.write_bytes(tokenizer.read_bytes())
    values = recipe(model__config=BLOOM, model__spm_model_path=str(alone), data__dataset_path=str(tmp_path / "data"))
    done = pretrain(values, tmp_path)
    assert done.returncode == 2
    assert "its documents begin and end with (0, 1), those of" in done.stderr
    assert "(None, 0): the files beside that one name other special pieces" in done.stderr
