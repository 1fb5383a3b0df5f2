"""From files to a dataset: the same whatever the processes, the interruptions and the bad records."""

import gzip
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from conftest import command, environment, make_texts

from tp_ext.corpus.faults import FAULTS
from tp_ext.data import parts, workers
from tp_ext.data.preprocess import preprocess
from tp_ext.data.store import KIND, Store
from tp_ext.errors import CorpusError, DatasetError
from tp_ext.output import kept_folder, sha256_of


def test_every_kind_of_line_gives_the_ids_of_its_text(tokenizer, tmp_path):
    texts = [*make_texts(40, 5), "a\nb", 'with "quotes" \\ and 文', "\u3000indented"]
    rows = [json.dumps({"id": number, "text": text}, ensure_ascii=number % 3 == 0) for number, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    preprocess([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out", 16)
    expected = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    store = Store(tmp_path / "out")
    assert store.tokens.tolist() == [index for ids in expected for index in ids]
    assert store.documents.tolist() == [0, *np.cumsum([len(ids) for ids in expected]).tolist()]
    assert store.text_bytes == sum(len(text.encode()) for text in texts)


@pytest.fixture
def corpora(tmp_path):
    """Files of every kind, several parts each."""
    texts = make_texts(200, 3)
    lines = "\n\n".join(texts).encode()
    objects = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    contents = {"a.txt": lines, "b.jsonl": objects, "c.txt.gz": gzip.compress(lines),
                "d.jsonl.zst": zstandard.compress(objects)}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_number_of_processes_changes_nothing(corpora, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    counts = [preprocess(corpora, tokenizer, tmp_path / str(n), 16, n) for n in (1, 2, 3)]
    assert counts[0] == counts[1] == counts[2]
    assert (counts[0]["documents"], counts[0]["empty_documents"], counts[0]["faults"]) == (800, 398, 0)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2") == files_of(tmp_path / "3")
    store = Store(tmp_path / "1")
    assert [source["documents"] for source in store.manifest["sources"]] == [200] * 4
    assert [source["sha256"] for source in store.manifest["sources"]] == list(map(sha256_of, corpora))


def test_every_document_knows_where_it_came_from(corpora, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    preprocess(corpora, tokenizer, tmp_path / "out", 16)
    store = Store(tmp_path / "out")
    unpack = {".gz": gzip.decompress, ".zst": zstandard.decompress}
    whole = {path: unpack.get(path.suffix, bytes)(path.read_bytes()) for path in corpora}
    for number, text in enumerate(make_texts(200, 3) * 4):
        origin = store.origin(number)
        path = corpora[number // 200]
        assert origin.path == str(path)
        line = whole[path][origin.offset :].split(b"\n")[0].decode()
        assert (json.loads(line)["text"] if "jsonl" in path.name else line) == text
        assert store.document_of(int(store.documents[number])) == number
        assert store.document_of(int(store.documents[number + 1]) - 1) == number


BAD = {
    "bad.txt": [b"good one", b"\xff\xfe", b"good two", b"zero\0byte", b"good three", b"x" * 3000, b"good four"],
    "bad.jsonl": [b'{"text": "good five"}', b"not json", b'{"txt": 1}', b'{"text": 5}', b"[1]", b'{"text": "\\ud800"}',
                  b'{"text": "good six"}'],
}  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_records_are_left_out_and_never_their_neighbours(tokenizer, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(parts, "PART_BYTES", 20)
    for name, lines in BAD.items():
        (tmp_path / name).write_bytes(b"\n".join(lines))
    whole = gzip.compress(b"good seven\ngood eight\n" + random.Random(0).randbytes(900).replace(b"\n", b""))
    (tmp_path / "cut.txt.gz").write_bytes(whole[:-300])
    paths = [*(tmp_path / name for name in BAD), tmp_path / "cut.txt.gz"]
    with pytest.raises(CorpusError, match="records are no text, more than --fault_limit 0.001: .*not UTF-8") as error:
        preprocess(paths, tokenizer, tmp_path / "out", 16, processes, longest_line=1000)
    offset = len(b"".join(line + b"\n" for line in BAD["bad.txt"][:3]))
    assert f"bad.txt: byte {offset}: NUL: zero" in str(error.value)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(workers, "encode", None)  # nothing is done twice
    counts = preprocess(paths, tokenizer, tmp_path / "out", 16, 1, longest_line=1000, fault_limit=0.6)
    assert (counts["documents"], counts["faults"]) == (8, 9)
    store = Store(tmp_path / "out")
    texts = [tokenizer.decode(store.tokens[a:b]) for a, b in zip(store.documents[:-1], store.documents[1:], strict=True)]
    assert texts == [f"good {word}" for word in "one two three four five six seven eight".split()]
    listed = [json.loads(line) for line in (tmp_path / "out" / FAULTS).read_text().splitlines()]
    assert [fault["kind"] for fault in listed] == ["not UTF-8", "NUL", "too long", "not JSON", "no text key",
                                                   "text not a string", "no object", "lone surrogate",
                                                   "damaged"]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "bad.txt", "cut.txt.gz", "out"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_file_of_which_nothing_can_be_read_is_a_fault(tokenizer, tmp_path, ending):
    pack = {"gz": gzip.compress, "zst": zstandard.compress}[ending]
    (tmp_path / f"a.txt.{ending}").write_bytes(pack(b"one line")[:12])
    with pytest.raises(CorpusError, match="1 of 1 records are no text"):
        preprocess([tmp_path / f"a.txt.{ending}"], tokenizer, tmp_path / "out", 16)


def test_few_bad_records_are_no_error(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\n" * 2000 + b"\xff\n")
    assert preprocess([tmp_path / "a.txt"], tokenizer, tmp_path / "out", 16)["faults"] == 1
    (tmp_path / "a.txt").write_bytes(b"fine\n" * 900 + b"\xff\n")
    with pytest.raises(CorpusError, match="1 of 901 records"):
        preprocess([tmp_path / "a.txt"], tokenizer, tmp_path / "out", 16)


KILLED = """
import os, signal, sys
from pathlib import Path
from tp_ext.data import journal, parts, preprocess
from tp_ext.tokens.tokenizer import open_tokenizer
*corpus, spm, output, place, number, processes = sys.argv[1:]
parts.PART_BYTES = 3000
if place == "finish":
    preprocess.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
else:
    append, left = journal.Journal.append, int(number)
    def killed(self, contents, values):
        global left
        left -= 1
        if left < 0 and place == "inside":
            self._files[0].write(contents[0][:100])
            self._files[0].flush()
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, contents, values)
    journal.Journal.append = killed
preprocess.preprocess([Path(name) for name in corpus], open_tokenizer(spm), Path(output), 16, int(processes))
"""


@pytest.mark.parametrize(("place", "number", "processes"), [
    ("between", 0, 1), ("between", 5, 2), ("between", 18, 1), ("inside", 1, 1), ("inside", 14, 2), ("finish", 0, 1),
])  # fmt: skip
def test_killed_at_any_moment_the_same_call_ends_at_the_same_bytes(
    corpora, tokenizer, tmp_path, monkeypatch, place, number, processes
):
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    preprocess(corpora, tokenizer, tmp_path / "expected", 16)
    line = [sys.executable, "-c", KILLED, *map(str, corpora), str(tokenizer.path), str(tmp_path / "out"), place, str(number),
            str(processes)]  # fmt: skip
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    encoded = []
    monkeypatch.setattr(workers, "encode", lambda part, *rest: encoded.append(part) or parts.encode(part, *rest))
    preprocess(corpora, tokenizer, tmp_path / "out", 16)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")
    total = sum(1 for _ in parts.parts_of(parts_corpora(corpora), 0, 0, 1 << 20))
    assert len(encoded) == (0 if place == "finish" else total - number)
    assert not (tmp_path / ".out.work").exists()


def parts_corpora(paths):
    from tp_ext.corpus.files import look_at_all

    return look_at_all(paths)


def interrupted(corpora, tokenizer, output, monkeypatch):
    """Leave four parts of work."""
    with monkeypatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 3000)
        count = iter(range(4))
        patch.setattr(workers, "encode", lambda *each: (next(count), parts.encode(*each))[1])
        with pytest.raises(RuntimeError):
            preprocess(corpora, tokenizer, output, 16)


@pytest.mark.parametrize("name", ["tokens.bin", "documents.bin", "origins.bin"])
def test_work_that_was_damaged_is_done_again(corpora, tokenizer, tmp_path, monkeypatch, name):
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    preprocess(corpora, tokenizer, tmp_path / "expected", 16)
    interrupted(corpora, tokenizer, tmp_path / "out", monkeypatch)
    with open(tmp_path / ".out.work" / "output" / name, "r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x77")
    preprocess(corpora, tokenizer, tmp_path / "out", 16)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


def test_work_of_other_settings_is_not_gone_on_with(corpora, tokenizer, tmp_path, monkeypatch):
    interrupted(corpora, tokenizer, tmp_path / "out", monkeypatch)
    corpora[1].write_bytes(corpora[1].read_bytes() + b'\n{"text": "one more"}')
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    preprocess(corpora, tokenizer, tmp_path / "expected", 16)
    preprocess(corpora, tokenizer, tmp_path / "out", 16)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


def test_the_same_file_by_another_name_is_read_anew(tokenizer, tmp_path):
    (tmp_path / "blob").write_text('{"text": "one"}\nnot json\n', encoding="utf-8")
    for name in ("a.jsonl", "a.txt"):
        (tmp_path / name).symlink_to(tmp_path / "blob")
    with pytest.raises(CorpusError, match="not JSON"):
        preprocess([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out", 16)
    assert preprocess([tmp_path / "a.txt"], tokenizer, tmp_path / "out", 16)["documents"] == 2


@pytest.mark.parametrize(("before", "after"), [
    (b'"stop": 3000', b'"stop": 6000'), (b'{"bytes": [', b'{"bytes": [1, '), (b'"sha256"', b'"sha255"'), (b"{", b"[]#{"),
])  # fmt: skip
def test_a_damaged_list_of_parts_is_not_believed(corpora, tokenizer, tmp_path, monkeypatch, before, after):
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    preprocess(corpora, tokenizer, tmp_path / "expected", 16)
    interrupted(corpora, tokenizer, tmp_path / "out", monkeypatch)
    (tmp_path / ".out.work" / "output" / "tokenizer.json").write_text("{}")  # as a run of another tokenizer might leave
    listed = tmp_path / ".out.work" / "parts.jsonl"
    assert before in listed.read_bytes()
    listed.write_bytes(listed.read_bytes().replace(before, after, 1))
    preprocess(corpora, tokenizer, tmp_path / "out", 16)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")


def test_a_file_name_that_is_no_text_can_be_read_back(tokenizer, tmp_path):
    path = tmp_path / os.fsdecode(b"\xfe.txt")
    path.write_bytes(b"fine\n" * 2000 + b"\xff\n")
    preprocess([path], tokenizer, tmp_path / "out", 16)
    assert Store(tmp_path / "out").origin(0).path == str(path)


def test_damaged_files_are_counted_apart(tokenizer, tmp_path):
    whole = gzip.compress(b"fine\n" * 2000)
    (tmp_path / "a.txt.gz").write_bytes(whole[:-8] + bytes(4) + whole[-4:])  # another checksum
    counts = preprocess([tmp_path / "a.txt.gz"], tokenizer, tmp_path / "out", 16)
    assert (counts["documents"], counts["damaged"]) == (2000, 1)


def test_a_second_run_on_one_path_refuses(corpora, tokenizer, tmp_path):
    with kept_folder(tmp_path / "out", KIND, DatasetError), pytest.raises(DatasetError, match="another process is writing"):
        preprocess(corpora, tokenizer, tmp_path / "out", 16)


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_full_disk_is_one_line_and_loses_nothing(corpora, tokenizer, tmp_path):
    line = ["scripts/preprocess.py", "--corpus_path", *corpora, "--spm_model_path", tokenizer.path, "--dataset_path",
            tmp_path / "out"]  # fmt: skip
    done = command("-c", FULL, *line)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not (tmp_path / "out").exists()
    assert command(*line).returncode == 0
    Store(tmp_path / "out").verify()


def test_a_file_that_changes_meanwhile_is_refused(corpora, tokenizer, tmp_path, monkeypatch):
    def changing(*each):
        os.utime(corpora[0], ns=(1, 1))
        return parts.encode(*each)

    monkeypatch.setattr(workers, "encode", changing)
    with pytest.raises(CorpusError, match="has changed while it was read"):
        preprocess(corpora, tokenizer, tmp_path / "out", 16)
    assert not (tmp_path / "out").exists()


def test_numbers_that_cannot_be_are_refused(corpora, tokenizer, tmp_path):
    with pytest.raises(DatasetError, match="seq_length is 0.*\nprocesses_num is 0.*\nfault_limit is nan.*\nlongest_line"):
        preprocess(corpora, tokenizer, tmp_path / "out", 0, 0, fault_limit=float("nan"), longest_line=-1)
    with pytest.raises(DatasetError, match="seq_length is 2147483648"):
        preprocess(corpora, tokenizer, tmp_path / "out", 1 << 31)


def test_progress_begins_with_what_an_earlier_run_did(corpora, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 300)
    seen = []

    def until_half(*each):
        seen.append(each)
        if each[0] > each[1] / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(corpora, tokenizer, tmp_path / "out", 16, progress=until_half)
    assert seen[0] == (0, seen[0][1], 0)
    last = seen[-1]
    seen.clear()
    preprocess(corpora, tokenizer, tmp_path / "out", 16, progress=lambda *each: seen.append(each))
    assert seen[0] == last


def test_the_same_file_twice_is_refused(corpus, tokenizer, tmp_path):
    with pytest.raises(CorpusError, match="is given twice"):
        preprocess([corpus, corpus], tokenizer, tmp_path / "out", 16)
