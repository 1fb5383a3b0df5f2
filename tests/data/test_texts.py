"""Looking into a dataset: places of a text, the documents of an instance, the command."""

import json

import numpy as np
import pytest
from conftest import command, make_texts

from tp_ext.data import texts
from tp_ext.data.pack import pack
from tp_ext.data.preprocess import preprocess
from tp_ext.data.store import Store
from tp_ext.data.texts import passages, search, tokenizer_of
from tp_ext.errors import DatasetError
from tp_ext.tokens.tokenizer import open_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("made")
    lines = [*make_texts(60, 4), "the needle 针 in the hay", "针" * 50, "many words " * 60]
    (folder / "a.txt").write_text("\n".join(lines[:30]), encoding="utf-8")
    rows = [json.dumps({"text": line}, ensure_ascii=False) for line in lines[30:]]
    (folder / "b.jsonl").write_text("\n".join(rows), encoding="utf-8")
    preprocess([folder / "a.txt", folder / "b.jsonl"], tokenizer, folder / "out", 32)
    return Store(folder / "out"), lines, folder


@pytest.mark.parametrize("block", [7, 100, 1 << 20])
def test_every_place_of_a_text_is_found(made, tokenizer, monkeypatch, block):
    store, lines, _ = made
    monkeypatch.setattr(texts, "BLOCK", block)
    for wanted in ("needle 针", "针针", "words many", "法", "e"):
        found = [place.document for place in search(store, tokenizer, wanted)]
        assert found == [number for number, line in enumerate(lines) for _ in range(line.count(wanted))], wanted
    for place in search(store, tokenizer, "needle"):
        assert place.token >= int(store.documents[place.document])
        assert "the needle 针 in the hay" in place.around
    assert list(search(store, tokenizer, "absent text")) == []
    with pytest.raises(DatasetError, match="is empty"):
        next(search(store, tokenizer, " "))
    with pytest.raises(DatasetError, match="not UTF-8"):
        next(search(store, tokenizer, "a\udcff"))


@pytest.mark.parametrize("packing", ["contiguous", "document", "best_fit"])
def test_passages_are_all_of_an_instance_and_nothing_else(made, tokenizer, packing):
    store, lines, _ = made
    instances = pack(store, 32, packing)
    seen = {}
    for index in range(len(instances)):
        batch = instances.read(np.array([index]))
        found = passages(instances, store, tokenizer, index)
        starts = [int(store.documents[part.document]) + part.first for part in found]
        ids = np.concatenate([store.tokens[a : a + part.tokens] for a, part in zip(starts, found, strict=True)])
        assert batch.window[0, : len(ids)].tolist() == ids.tolist()
        for part in found:
            seen.setdefault(part.document, set()).update(range(part.first, part.first + part.tokens))
            assert part.of == int(store.documents[part.document + 1] - store.documents[part.document])
            if part.tokens == part.of:
                assert part.text == lines[part.document]
    assert all(seen[document] == set(range(int(size))) for document, size in enumerate(np.diff(store.documents)))
    for wrong in (-1, len(instances)):
        with pytest.raises(DatasetError, match=f"no instance {wrong}; they are numbered from 0"):
            passages(instances, store, tokenizer, wrong)


def test_the_tokenizer_in_the_dataset_is_the_one_that_made_it(made, tokenizer, merged):
    store, _, _ = made
    assert tokenizer_of(store).sha256 == tokenizer.sha256
    with pytest.raises(DatasetError, match="was made with another tokenizer than"):
        tokenizer_of(store, merged.path)


def test_the_command_shows_all_of_it(made):
    store, _, folder = made
    done = command("scripts/inspect_data.py", store.path)
    assert "63 documents" in done.stdout
    assert f"30 documents  {folder / 'a.txt'}" in done.stdout
    done = command("scripts/inspect_data.py", store.path, "--search", "needle")
    offset = (folder / "b.jsonl").read_bytes().index(b'{"text": "the needle')
    assert "--- document 60, token" in done.stdout
    assert f"b.jsonl, byte {offset}\n" in done.stdout
    done = command("scripts/inspect_data.py", store.path, "--instance", 0, "--seq_length", 4096, "--packing", "best_fit")
    assert done.stdout.count("--- document") == 63
    assert done.stdout.count(", whole; ") == 63
    for wrong in (["--instance", 9999], ["--seq_length", 0], ["--seq_length", 1 << 31]):
        done = command("scripts/inspect_data.py", store.path, *wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_no_place_is_found_across_two_documents(tmp_path):
    """Where a tokenizer has neither begin nor end, nothing stands between them."""
    from sentencepiece import SentencePieceTrainer

    lines = ["我们中国人", "人民中国", "中", "国"] * 50
    SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=str(tmp_path / "t"), vocab_size=14, bos_id=-1,
                               eos_id=-1, model_type="bpe", hard_vocab_limit=False, add_dummy_prefix=False,
                               minloglevel=2)  # fmt: skip
    tokenizer = open_tokenizer(tmp_path / "t.model")
    (tmp_path / "a.txt").write_text("我们中\n国人民\n中国\n", encoding="utf-8")
    preprocess([tmp_path / "a.txt"], tokenizer, tmp_path / "out", 4)
    assert [found.document for found in search(Store(tmp_path / "out"), tokenizer, "中国")] == [2]


def test_a_passage_inside_a_document_keeps_its_space(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("many words and more text here " * 5, encoding="utf-8")
    preprocess([tmp_path / "a.txt"], tokenizer, tmp_path / "out", 3)
    store = Store(tmp_path / "out")
    instances = pack(store, 3)
    texts = [passages(instances, store, tokenizer, index)[0] for index in range(len(instances))]
    for found in texts[1:]:
        first = int(store.tokens[int(store.documents[0]) + found.first])
        assert found.text.startswith(" ") == tokenizer.piece(first).startswith("▁")
