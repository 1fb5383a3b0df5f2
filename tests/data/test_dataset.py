import json
import shutil

import numpy as np
import pytest

from tp_ext.data.preprocess import preprocess
from tp_ext.data.store import TOKENS, Store
from tp_ext.errors import DatasetError


def test_the_dataset_is_bos_ids_eos_of_every_document(corpus, dataset, tokenizer):
    expected = [[1, *tokenizer.encode(text), 2] for text in corpus.read_text(encoding="utf-8").splitlines()]
    store = Store(dataset)
    assert store.tokens.tolist() == [i for ids in expected for i in ids]
    assert store.documents.tolist() == [0, *np.cumsum([len(ids) for ids in expected]).tolist()]
    assert store.tokens.dtype == np.uint16
    assert store.text_bytes == len(corpus.read_bytes()) - len(expected)
    assert store.tokenizer_sha256 == tokenizer.sha256


def test_a_corpus_without_text_is_refused(tokenizer, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DatasetError, match="no document with text"):
        preprocess([tmp_path / "empty.txt"], tokenizer, tmp_path / "out", 16)


def test_a_foreign_folder_is_never_overwritten(corpus, tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for manifest in (None, '{"name": "mine too"}', '{"kind": "tp_ext dataset 1", "files": {}}'):
        if manifest:
            (tmp_path / "out" / "manifest.json").write_text(manifest)
        with pytest.raises(DatasetError, match="is not a 'tp_ext dataset 2' written by tp_ext, with thesis.txt in it"):
            preprocess([corpus], tokenizer, tmp_path / "out", 16)
        assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("key", "value"), [
    ("sources", 5), ("sources", [{"path": "a"}]), ("sources", [{"path": "a", "documents": 10**6}]), ("tokens", "many"),
    ("tokens", -1), ("documents", True), ("vocab_size", None), ("tokenizer_sha256", 7), ("seq_length", 1.5), ("files", []),
    ("files", {}), ("text_bytes", []),
])  # fmt: skip
def test_a_manifest_of_other_kinds_is_refused(dataset, tmp_path, key, value):
    shutil.copytree(dataset, tmp_path / "d")
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    (tmp_path / "d" / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(DatasetError, match=r"manifest\.json: damaged: "):
        Store(tmp_path / "d")


def test_a_damaged_or_foreign_dataset_is_refused(dataset, tmp_path):
    import shutil

    with pytest.raises(DatasetError, match="no dataset here; make one with scripts/preprocess.py"):
        Store(tmp_path)
    shutil.copytree(dataset, tmp_path / "d")
    with open(tmp_path / "d" / TOKENS, "r+b") as file:
        file.truncate(10)
    with pytest.raises(DatasetError, match=r"tokens.bin has 10 bytes instead of"):
        Store(tmp_path / "d")
