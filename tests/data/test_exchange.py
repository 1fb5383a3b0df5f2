"""TencentPretrain's dataset file, written and read."""

import json
import os
import pickle
import subprocess
import sys
from itertools import pairwise

import pytest
from conftest import command, environment, make_texts

from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.data.exchange import read_tencentpretrain, write_tencentpretrain
from tp_ext.data.preprocess import made_before, preprocess
from tp_ext.data.store import Store
from tp_ext.errors import CorpusError, DatasetError


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("made")
    (folder / "a.txt").write_text("\n".join([*make_texts(60, 4), "法" * 100]) + "\n", encoding="utf-8")
    preprocess([folder / "a.txt"], tokenizer, folder / "store", 16)
    return Store(folder / "store"), folder


def instances_of(path):
    with open(path, "rb") as file:
        while file.peek(1):
            yield pickle.load(file)


@pytest.mark.parametrize("packing", ["contiguous", "document"])
@pytest.mark.parametrize("seq_length", [1, 16, 31, 100_000])
def test_no_id_is_lost_and_no_padding_is_a_target(made, tmp_path, packing, seq_length):
    store, _ = made
    count = write_tencentpretrain(store, tmp_path / "d.pt", seq_length, packing)
    found = list(instances_of(tmp_path / "d.pt"))
    assert len(found) == count
    for (ids, padding), (targets,) in found:
        assert len(ids) + padding == seq_length + 1
        assert targets == len(ids) - 1 >= 1
    bounds = [0, len(store.tokens)] if packing == "contiguous" else store.documents.tolist()
    parts = [store.tokens[a:b].tolist() for a, b in pairwise(bounds)]
    cut = [part[place : place + seq_length + 1] for part in parts for place in range(0, len(part), seq_length + 1)]
    assert [ids for (ids, _), _ in found] == [part for part in cut if len(part) > 1]


def test_what_was_written_reads_back_as_the_same_documents(made, tmp_path, tokenizer):
    store, _ = made
    for packing in ("contiguous", "document"):
        write_tencentpretrain(store, tmp_path / "d.pt", 39, packing)
        read_tencentpretrain([tmp_path / "d.pt"], tokenizer, tmp_path / packing, 16)
        again = Store(tmp_path / packing)
        if packing == "contiguous":  # and no rest of one id was left out
            assert len(store.tokens) % 40 != 1
            assert again.tokens.tolist() == store.tokens.tolist()
            assert again.documents.tolist() == store.documents.tolist()
            assert again.text_bytes == store.text_bytes
        assert again.origin(0).offset == 0


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/tp_ext_was_run",))


HUGE = 10**5000


@pytest.mark.parametrize(("instance", "expected"), [
    (Evil(), "names (posix|nt).system, which such a file has no need of"),
    (([1, 2], [2]), "is no instance of --data_processor lm"),
    ((([1, "a"], 0), [1]), "is no instance"), ((([1, 2.0], 0), [1]), "is no instance"), (7, "7 is no instance"),
    ((([1, 500], 0), [1]), "holds the id 500, and .* has 500 pieces"), ((([1, -2], 0), [1]), "holds the id -2"),
    ((([1, HUGE], 0), [1]), "holds the id something"), ((([1, 2], -3), [1]), "is no instance"),
    ((([1, 2], 0), [9]), "is no instance"), (HUGE, r"something \(int\) is no instance"),
], ids=lambda value: value if isinstance(value, str) else type(value).__name__)  # fmt: skip
def test_anything_but_instances_of_this_tokenizer_is_refused(tmp_path, tokenizer, instance, expected):
    good = pickle.dumps((([1, 5, 2], 0), [2]))
    (tmp_path / "d.pt").write_bytes(good + pickle.dumps(instance))
    with pytest.raises(CorpusError, match=f"d.pt: byte {len(good)}: .*{expected}"):
        read_tencentpretrain([tmp_path / "d.pt"], tokenizer, tmp_path / "out", 16)
    assert not os.path.exists("/tmp/tp_ext_was_run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.pt"]


@pytest.mark.parametrize("keep", [1, 5, -1])
def test_a_file_cut_short_is_refused(tmp_path, tokenizer, keep):
    good = pickle.dumps((([1, 5, 2], 0), [2]))
    (tmp_path / "d.pt").write_bytes(good + good[:keep])
    with pytest.raises(CorpusError, match=f"byte {len(good)}: no instance, or one cut short"):
        read_tencentpretrain([tmp_path / "d.pt"], tokenizer, tmp_path / "out", 16)
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(DatasetError, match="no instance in it"):
        read_tencentpretrain([tmp_path / "empty.pt"], tokenizer, tmp_path / "out", 16)


@pytest.mark.parametrize("content", [b"\x80\x04\x8e" + b"\xff" * 8, b"\x80\x04B\xff\xff\xff\x7f", b"]" * 5000])
def test_a_pickle_that_asks_for_too_much_is_refused(tmp_path, tokenizer, content):
    (tmp_path / "d.pt").write_bytes(content)
    with pytest.raises(CorpusError, match="byte 0: no instance, or one cut short"):
        read_tencentpretrain([tmp_path / "d.pt"], tokenizer, tmp_path / "out", 16)
    with pytest.raises(DatasetError, match="seq_length is 0"):
        read_tencentpretrain([tmp_path / "d.pt"], tokenizer, tmp_path / "out", 0)


def test_nothing_is_written_over(made, tmp_path, tokenizer):
    _, folder = made
    (tmp_path / "a.txt").write_bytes((folder / "a.txt").read_bytes())
    line = ["scripts/preprocess.py", "--spm_model_path", tokenizer.path, "--corpus_path", tmp_path / "a.txt"]
    done = command(*line, "--format", "tencentpretrain", "--dataset_path", tmp_path / "a.txt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert (tmp_path / "a.txt").read_bytes() == (folder / "a.txt").read_bytes()
    done = command(*line, "--packing", "document", "--dataset_path", tmp_path / "out")
    assert "--packing is for --format tencentpretrain" in done.stderr


def test_what_a_killed_export_left_is_used_when_it_is_of_the_same_files(made, tmp_path, tokenizer):
    _, folder = made
    corpus, left, file = tmp_path / "a.txt", tmp_path / ".d.pt.work" / "dataset", tmp_path / "d.pt"
    corpus.write_bytes((folder / "a.txt").read_bytes())
    assert not made_before([corpus], tokenizer, left, LONGEST_LINE)
    preprocess([corpus], tokenizer, left, 39)
    assert made_before([corpus], tokenizer, left, LONGEST_LINE)
    assert not made_before([corpus], tokenizer, left, 1000)
    assert not made_before([corpus, tmp_path / "b.txt"], tokenizer, left, LONGEST_LINE)
    line = ["scripts/preprocess.py", "--spm_model_path", tokenizer.path, "--seq_length", 39, "--format", "tencentpretrain"]
    done = command(*line, "--corpus_path", corpus, "--dataset_path", file)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "d.pt"}
    first = file.read_bytes()
    file.unlink()
    preprocess([corpus], tokenizer, left, 39)
    corpus.write_bytes(corpus.read_bytes() * 2)
    assert not made_before([corpus], tokenizer, left, LONGEST_LINE)
    assert command(*line, "--corpus_path", corpus, "--dataset_path", file).returncode == 0
    assert len(file.read_bytes()) > 1.5 * len(first)


def test_the_command_goes_both_ways(made, tmp_path, tokenizer):
    store, folder = made
    line = ["scripts/preprocess.py", "--spm_model_path", tokenizer.path, "--seq_length", 39]
    file = tmp_path / "d.pt"
    done = command(*line, "--corpus_path", folder / "a.txt", "--format", "tencentpretrain", "--dataset_path", file)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["d.pt"]
    done = command(*line, "--corpus_path", file, "--from", "tencentpretrain", "--dataset_path", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert Store(tmp_path / "out").tokens.tolist() == store.tokens.tolist()


@pytest.mark.parametrize("packing", ["contiguous", "document"])
def test_it_is_the_file_that_tencentpretrain_makes_where_its_own_is_right(tmp_path, tokenizer, packing):
    checkout = os.environ.get("TENCENTPRETRAIN")
    if not checkout:
        pytest.skip("TENCENTPRETRAIN does not point to a checkout")
    texts = [text for text in make_texts(80, 6) if not any(letter in "0123456789" for letter in text)]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")  # its tokenizer cuts digits in its own way
    tokens = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<unk>"}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "special_tokens_map.json").write_text(json.dumps(tokens))
    line = [sys.executable, f"{checkout}/preprocess.py", "--corpus_path", tmp_path / "a.txt", "--dataset_path",
            tmp_path / "theirs.pt", "--spm_model_path", tokenizer.path, "--tokenizer", "bert", "--data_processor", "lm",
            "--seq_length", "39", *(["--full_sentences"] if packing == "contiguous" else [])]  # fmt: skip
    (tmp_path / "six.py").write_text("__version__, PY2, PY3 = '1.16.0', False, True")  # all that it wants of that package
    path = {**environment(), "PYTHONPATH": f"{tmp_path}:{checkout}"}
    done = subprocess.run(list(map(str, line)), cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    preprocess([tmp_path / "a.txt"], tokenizer, tmp_path / "store", 39)
    write_tencentpretrain(Store(tmp_path / "store"), tmp_path / "ours.pt", 39, packing)
    theirs, ours = (list(instances_of(tmp_path / name)) for name in ("theirs.pt", "ours.pt"))
    if packing == "contiguous":
        assert ours[: len(theirs)] == theirs
        assert len(ours) == len(theirs) + 1  # the rest at the end, which it drops
        assert (tmp_path / "ours.pt").read_bytes().startswith((tmp_path / "theirs.pt").read_bytes())
    else:
        right = [(ids, [targets if padding == 0 else targets - 1]) for (ids, (targets,)) in theirs for padding in [ids[1]]]
        assert ours == [each for each in right if each[1][0]]  # it counts the first padding as a target
