import gzip
import json

import pytest
import zstandard

from tp_ext.corpus import readers
from tp_ext.errors import CorpusError

TEXTS = ["第一条 为了", "two words", "", "尾"]


def texts(path, size=readers.PART_BYTES):
    return [text for part in readers.split(path, size) for _, text in readers.read(part)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


LINES = "\n".join(TEXTS).encode()
OBJECTS = "\n".join(json.dumps({"text": text}) for text in TEXTS).encode()


def two_frames(content):
    return zstandard.compress(content[:9]) + zstandard.compress(content[9:])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress, two_frames])
@pytest.mark.parametrize(("name", "content"), [("a.txt", LINES), ("a.jsonl", OBJECTS), ("a.txt", LINES + b"\n")])
def test_documents_of_every_container(tmp_path, name, content, pack):
    ending = {bytes: "", gzip.compress: ".gz"}.get(pack, ".zst")
    assert texts(written(tmp_path, name + ending, pack(content))) == TEXTS


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1000])
def test_parts_of_any_size_give_each_line_once(tmp_path, size):
    assert texts(written(tmp_path, "a.txt", LINES), size) == TEXTS
    assert texts(written(tmp_path, "b.jsonl", OBJECTS), size) == TEXTS


def test_bytes_of_the_lines_are_all_bytes(tmp_path):
    path = written(tmp_path, "a.txt", LINES)
    assert sum(size for part in readers.split(path, 5) for size, _ in readers.read(part)) == len(LINES)


def test_windows_line_ends_and_a_byte_order_mark_are_no_text(tmp_path):
    assert texts(written(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n")) == ["one", "two"]


def test_an_ending_in_capitals_is_the_same(tmp_path):
    assert texts(written(tmp_path, "A.JSONL", OBJECTS)) == TEXTS


def test_an_empty_file_has_no_documents(tmp_path):
    assert texts(written(tmp_path, "a.txt", b"")) == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "好".encode() + b"\n\xb0\xa1\n", "byte 4: not UTF-8"),
        ("a.txt", "好的".encode("utf-16"), "not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "the line at byte 14: not JSON"),
        ("a.jsonl", b'[{"text": "a"}]', 'expected an object with a string under "text"'),
        ("a.jsonl", b'{"txt": "a"}', 'expected an object with a string under "text"'),
        ("a.jsonl", b'{"text": 3}', 'expected an object with a string under "text"'),
        ("a.jsonl", b'{"text": null}', 'expected an object with a string under "text"'),
        ("a.jsonl", b'{"text": "\\ud800"}', "half of a surrogate pair"),
        ("a.txt.gz", gzip.compress(LINES * 100)[:-20], "damaged or cut short"),
        ("a.txt.gz", gzip.compress(LINES)[:-9] + b"123456789", "damaged or cut short"),
        ("a.txt.zst", zstandard.compress(LINES * 100)[:-5], "damaged or cut short"),
        ("a.txt.zst", zstandard.compress(LINES) + zstandard.compress(LINES)[:-4], "damaged or cut short"),
        ("a.txt.gz", LINES, "does not begin as such a file does"),
        ("a.ndjson", OBJECTS, "is neither .txt nor .jsonl"),
        ("a.jsonl.1.gz", gzip.compress(OBJECTS), "is neither .txt nor .jsonl"),
        ("a.jsonl", b"[" * 100_000, "not JSON"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, expected):
    path = written(tmp_path, name, content)
    with pytest.raises(CorpusError, match=expected) as error:
        texts(path)
    assert str(path) in str(error.value)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(CorpusError, match="is not a regular file"):
        readers.split(tmp_path / "folder.jsonl")
    with pytest.raises(CorpusError, match="no such file"):
        readers.split(tmp_path / "absent.txt")
