import gzip
import json
import random
import zlib

import numpy as np
import pytest
import zstandard

from tp_ext.corpus import lines as lines_module
from tp_ext.corpus import objects
from tp_ext.corpus.blocks import blocks, read
from tp_ext.corpus.files import look_at, look_at_all
from tp_ext.corpus.lines import Lines
from tp_ext.corpus.readers import texts
from tp_ext.errors import CorpusError

TEXTS = ["第一条 为了", "two words", "尾"]
LINES = "\n".join(TEXTS).encode()
OBJECTS = "\n".join(json.dumps({"text": text}) for text in TEXTS).encode()


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def whole(path, longest=1 << 26):
    """Texts, offsets, faults as (kind, offset), and the empty ones of a file."""
    found = list(read(look_at(path), longest))
    return (
        [text for block in found for text in block.texts()],
        [offset for block in found for offset in block.documents.offsets.tolist()],
        [(fault.kind, fault.offset) for block in found for fault in block.faults],
        sum(block.empty for block in found),
    )


def by_parts(path, size, longest=1 << 26):
    """Texts and faults of a plain file read in parts of `size` bytes, each opened on its own."""
    corpus, found, faults = look_at(path), [], []
    for start in range(0, corpus.size, size):
        with corpus.open(max(start - 1, 0)) as stream:
            lines = Lines(stream, max(start - 1, 0), longest, skip=start > 0)
            for block in blocks(corpus, lines, min(start + size, corpus.size)):
                found += zip(block.texts(), block.documents.offsets.tolist(), strict=True)
                faults += [(fault.kind, fault.offset) for fault in block.faults]
    return found, faults


def two_frames(content):
    return zstandard.compress(content[:9]) + zstandard.compress(content[9:])


def two_members(content):
    return gzip.compress(content[:9]) + gzip.compress(content[9:]) + bytes(700)


def skippable_first(content):
    return b"\x50\x2a\x4d\x18\x04\0\0\0pzst" + zstandard.compress(content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, two_members, zstandard.compress, two_frames, skippable_first])
@pytest.mark.parametrize(("name", "content"), [("a.txt", LINES), ("a.jsonl", OBJECTS), ("a.txt", LINES + b"\n")])
def test_documents_of_every_container(tmp_path, name, content, pack):
    ending = {bytes: "", gzip.compress: ".gz", two_members: ".gz"}.get(pack, ".zst")
    assert whole(written(tmp_path, name + ending, pack(content)))[0] == TEXTS


@pytest.mark.parametrize("block", [1, 2, 5, 64, 1 << 20])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1000])
def test_parts_and_blocks_of_any_size_give_each_line_once(tmp_path, monkeypatch, size, block):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", block)
    for name, content in (("a.txt", b"\xef\xbb\xbf" + LINES), ("b.jsonl", OBJECTS + b"\r\n\n{")):
        path = written(tmp_path, name, content)
        found, offsets, faults, _ = whole(path)
        assert by_parts(path, size) == (list(zip(found, offsets, strict=True)), faults)


@pytest.mark.parametrize("block", [4, 64, 1 << 20])
@pytest.mark.parametrize("size", [3, 50, 1 << 20])
def test_a_line_that_is_too_long_is_one_fault_however_it_is_read(tmp_path, monkeypatch, size, block):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", block)
    path = written(tmp_path, "a.txt", b"one\n" + b"x" * 500 + b"\n" + b"y" * 100 + b"\n" + b"z" * 101)
    kept = ["one", "y" * 100]
    assert whole(path, 100)[::2] == (kept, [("too long", 4), ("too long", 606)])
    assert by_parts(path, size, 100) == ([("one", 0), ("y" * 100, 505)], [("too long", 4), ("too long", 606)])


def test_of_a_line_that_is_too_long_little_more_than_the_longest_is_asked_for(monkeypatch):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", 1 << 8)
    asked = []

    def read_some(count):
        asked.append(count)
        return b"x" * count if sum(asked) < 1 << 20 else b""

    [piece] = Lines(read_some, 0, 1 << 14).until(None)
    assert piece.fault == "too long"
    assert sum(asked[:8]) <= (1 << 14) + (1 << 8)
    assert max(asked) <= 1 << 13


def test_offsets_are_those_of_the_lines(tmp_path):
    content = b"\xef\xbb\xbfone\r\n\n \t\ntwo\n"
    assert whole(written(tmp_path, "a.txt", content)) == (["one", "two"], [0, 12], [], 2)
    path = written(tmp_path, "a.jsonl", b'{"text": "a"}\n\n{"id": 1, "text": "b\\nc"}\n{"text": " "}\n')
    assert whole(path) == (["a", "b\nc"], [0, 15], [], 2)


@pytest.mark.parametrize("blank", ["", " ", "\t\r", "\u3000", "\u3000 \u2009", "\x1c\x85"])
def test_what_strip_calls_blank_is_left_out(tmp_path, blank):
    text = f"\u3000a\u3000\n{blank}\n\u3000\u3001\n"
    assert whole(written(tmp_path, "a.txt", text.encode()))[::3] == (["\u3000a\u3000", "\u3000\u3001"], 1)


GOOD = [f"第{number}条 neighbour" for number in range(99)]
BAD_LINES = [
    ("a.txt", b"good \xb0\xa1 bad", "not UTF-8"),
    ("a.txt", b"cut off \xe5\xa5", "not UTF-8"),
    ("a.txt", b"surrogate \xed\xa0\x80", "not UTF-8"),
    ("a.txt", b"over\xc0\x80long", "not UTF-8"),
    ("a.txt", b"zero \0 byte", "NUL"),
    ("a.txt", b"\0" * 50, "NUL"),
    ("a.txt", b"x" * 3000, "too long"),
    ("a.jsonl", b'{"text": "' + b"x" * 3000 + b'"}', "too long"),
    ("a.jsonl", b'{"text": ', "not JSON"),
    ("a.jsonl", b'{"text": "a"} {"text": "b"}', "not JSON"),
    ("a.jsonl", b'{"text": "a"},{"text": "b"}', "not JSON"),
    ("a.jsonl", b'{"text": "a", "b": [1', "not JSON"),
    ("a.jsonl", b'{"text": "tab\there"}', "not JSON"),
    ("a.jsonl", b'{"text": "bad \\x escape"}', "not JSON"),
    ("a.jsonl", b'{"text": "no end\\"}', "not JSON"),
    ("a.jsonl", b'{"text": "a" \\n}', "not JSON"),
    ("a.jsonl", b"plain text", "not JSON"),
    ("a.jsonl", b"[" * 2900, "not JSON"),
    ("a.jsonl", b'{"text": "\xb0\xa1"}', "not UTF-8"),
    ("a.jsonl", b'[{"text": "a"}]', "no object"),
    ("a.jsonl", b'"text"', "no object"),
    ("a.jsonl", b'{"txt": "a"}', "no text key"),
    ("a.jsonl", b'{"meta": {"text": "nested"}}', "no text key"),
    ("a.jsonl", b'{"meta": [{"text": "nested"}], "title": "x"}', "no text key"),
    ("a.jsonl", b'{"a": "{\\"text\\": \\"quoted\\"}"}', "no text key"),
    ("a.jsonl", b'{"text": 3}', "text not a string"),
    ("a.jsonl", b'{"text": null}', "text not a string"),
    ("a.jsonl", b'{"text": "a", "text": ["b"]}', "text not a string"),
    ("a.jsonl", b'{"text": "\\ud800"}', "lone surrogate"),
    ("a.jsonl", b'{"text": "a\\u0000b"}', "NUL"),
]


@pytest.mark.parametrize(("name", "line", "kind"), BAD_LINES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("place", [0, 50, 99])
def test_a_bad_record_is_one_fault_and_its_neighbours_survive(tmp_path, name, line, kind, place):
    records = [text.encode() if name == "a.txt" else json.dumps({"n": 1, "text": text}).encode() for text in GOOD]
    records.insert(place, line)
    path = written(tmp_path, name, b"\n".join(records) + b"\n")
    offset = sum(len(record) + 1 for record in records[:place])
    assert whole(path, 2950)[::2] == (GOOD, [(kind, offset)])


@pytest.mark.parametrize(("name", "line", "kind"), BAD_LINES, ids=lambda value: str(value)[:30])
def test_those_who_want_every_document_are_told_the_place(tmp_path, name, line, kind):
    if kind == "too long":
        pytest.skip("within the limit of 64 MB")
    path = written(tmp_path, name, line)
    with pytest.raises(CorpusError, match=f"byte 0: {kind}: ") as error:
        list(texts([path]))
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_a_file_in_utf_16_or_32_is_refused_by_that_name(tmp_path, name, pack):
    for encoding in ("UTF-16-LE", "UTF-16-BE", "UTF-32-LE", "UTF-32-BE"):
        path = written(tmp_path, name, pack("\ufeff[1]\nlines\n".encode(encoding)))
        wide = encoding[:6]
        with pytest.raises(CorpusError, match=f"is {wide}, by its byte order mark; convert it first: iconv -f {wide} "):
            look_at(path)


def test_a_file_in_utf_16_without_a_mark_is_all_faults(tmp_path):
    found, _, faults, _ = whole(written(tmp_path, "a.txt", "plain\nlines\n".encode("utf-16-le")))
    assert found == []
    assert {kind for kind, _ in faults} <= {"NUL", "not UTF-8"}


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_of_what_grows_no_more_is_given_than_was_asked_for(tmp_path, pack):
    content = bytes(3 << 20) + LONG
    with look_at(written(tmp_path, "a.txt.gz", pack(content))).open() as read_some:
        pieces = list(iter(lambda: read_some(1 << 16), b""))
    assert {len(piece) for piece in pieces[:-1]} == {1 << 16}
    assert b"".join(pieces) == content


LONG = "\n".join(f"{number} {random.Random(number).random()}" for number in range(5000)).encode()


@pytest.mark.parametrize("cut", [4, 9, 100, 2000])
@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_of_a_file_that_is_cut_short_the_whole_lines_are_kept(tmp_path, ending, pack, cut):
    found, offsets, faults, _ = whole(written(tmp_path, f"a.txt.{ending}", pack(LONG)[:-cut]))
    assert found == LONG.decode().split("\n")[: len(found)]
    assert [kind for kind, _ in faults] == ["damaged"]
    assert faults[0][1] == offsets[-1] + len(found[-1]) + 1 if found else faults[0][1] == 0


def test_of_a_gzip_file_that_is_changed_everything_before_the_change_is_kept(tmp_path):
    packed = bytearray(gzip.compress(LONG))
    place = len(packed) // 2
    packed[place : place + 20] = bytes(20)
    path = written(tmp_path, "a.txt.gz", bytes(packed))
    found, _, faults, _ = whole(path)
    decompressor, expected = zlib.decompressobj(31), b""
    for byte in packed:
        try:
            expected += decompressor.decompress(bytes([byte]))
        except zlib.error:
            break
    assert found == expected.decode("utf-8", "replace").split("\n")[:-1]
    assert faults[-1] == ("damaged", expected.rindex(b"\n") + 1)
    assert len(found) > 1000


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"])
def test_a_line_of_the_greatest_length_is_one_wherever_a_read_ends(end):
    content = b"x" * 50 + end + b"y" * 51 + end
    for cut in range(1, len(content)):
        pieces = iter([content[:cut], content[cut:], b""])
        found = list(Lines(lambda count, pieces=pieces: next(pieces), 0, 50).until(None))
        assert [piece.fault for piece in found if piece.offset == 0] == [""], cut


def test_a_wrong_checksum_and_another_frame_are_noticed(tmp_path):
    wrong = gzip.compress(LINES)[:-8] + b"12345678"
    assert whole(written(tmp_path, "a.txt.gz", wrong))[::2] == (TEXTS[:2], [("damaged", LINES.rindex(b"\n") + 1)])
    rubbish = zstandard.compress(LINES + b"\n") + b"rubbish"
    assert whole(written(tmp_path, "b.txt.zst", rubbish))[2][-1][0] == "damaged"


@pytest.mark.parametrize("name", ["a.txt", "A.JSONL", "a.json", "a.txt.gz"])
def test_an_empty_file_has_no_documents(tmp_path, name):
    assert whole(written(tmp_path, name, b"")) == ([], [], [], 0)


ODD = ["\\u00", "0", "-", ".", "e", "E+1", "nul", "true", "NaN", "\x01", "\r", "\ufeff", " "]


def random_value(draw, depth=0):
    if depth < 3 and draw.random() < 0.3:
        return {draw.choice(["text", "a", "文"]): random_value(draw, depth + 1) for _ in range(draw.randint(0, 3))}
    if depth < 3 and draw.random() < 0.2:
        return [random_value(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    alphabet = ['"', "\\", "/", "n", "u0041", "文", " ", "{", "}", ",", ":", "\n", "\ue8f3", '"text":"', "text", "\t", "x",
                "\U0001f600", "\ud800", "\0"]  # fmt: skip
    word = "".join(draw.choices(alphabet, k=draw.randint(0, 8)))
    return draw.choice([word, word, word, 1, -2.5e3, None, True])


def random_line(draw):
    value = {draw.choice(["text", "text", "id", "m"]): random_value(draw) for _ in range(draw.randint(1, 4))}
    value = value if draw.random() < 0.2 else {**value, "text": str(random_value(draw, 3))}
    if draw.random() < 0.2:
        value["deep"] = json.loads("[" * (depth := draw.choice([1, 63, 64, 65, 200])) + "]" * depth)
    separators = draw.choice([(",", ":"), (", ", ": "), (" , ", " : ")])
    line = json.dumps(value, ensure_ascii=draw.random() < 0.2, separators=separators)
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        place = draw.randint(0, len(line))
        change = draw.choice(['"', "\\", "{", "}", ",", ":", "]", "", "\\\\", '"text": "x"', *ODD])
        line = line[:place] + change + line[place + 1 :]
    return line.replace("\n", " ").encode(errors="replace")


def expected_of(line):
    try:
        text = json.loads(line)["text"]
        text.encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return text if text.strip() and "\0" not in text else None


def use(monkeypatch, way):
    if way == "compiled" and objects._compiled is None:
        pytest.skip("the part in C was not built")
    if way != "compiled":
        monkeypatch.setattr(objects, "_compiled", None)
    if way == "numpy":
        monkeypatch.setattr(objects, "_orjson", None)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("way", ["compiled", "numpy", "numpy and orjson"])
def test_texts_of_objects_are_those_that_parsing_gives(tmp_path, monkeypatch, seed, way):
    use(monkeypatch, way)
    draw = random.Random(seed)
    lines = [random_line(draw) for _ in range(draw.choice([1, 2, 30, 200]))]
    expected = [text for text in map(expected_of, lines) if text is not None]
    assert whole(written(tmp_path, "a.jsonl", b"\n".join(lines)))[0] == expected


@pytest.mark.parametrize("way", ["compiled", "numpy", "numpy and orjson"])
def test_how_deep_a_line_may_be_depends_on_no_parser(tmp_path, monkeypatch, way):
    use(monkeypatch, way)

    def nested(depth, text):
        lists = b"[" * (depth - 1) + b"]" * (depth - 1)
        return b'{"brackets": "\\"' + b"[{" * 600 + b'", "deep": ' + lists + b', "text": "' + text + b'"}'

    objects_in_objects = b'{"text":' * 700 + b"1" + b"}" * 700
    deepest = objects._DEEPEST
    lines = [nested(deepest, b"a"), nested(deepest + 1, b"no"), objects_in_objects, nested(980, b"no"), b'{"text": "b"}']
    texts, _, faults, _ = whole(written(tmp_path, "a.jsonl", b"\n".join(lines)))
    assert texts == ["a", "b"]
    assert [kind for kind, _ in faults] == ["not JSON"] * 3
    wide = b'{"wide": [' + b",".join([b"[{}]"] * 2000) + b'], "te\\u0078t": "c"}'
    assert whole(written(tmp_path, "b.jsonl", wide))[0] == ["c"]


@pytest.mark.parametrize("way", ["compiled", "numpy"])
def test_typical_lines_are_not_parsed_whole(tmp_path, monkeypatch, way):
    use(monkeypatch, way)
    monkeypatch.setattr(objects, "_parse", lambda line, key: pytest.fail(f"{line!r} was parsed"))
    rows = [{"text": "甲"}, {"id": 1, "meta": {"n": [1]}, "text": 'a "b"\n\\c'}, {"text": "丙", "url": "http://x/\\"}]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert whole(written(tmp_path, "a.jsonl", content.encode()))[0] == ["甲", 'a "b"\n\\c', "丙"]


def test_the_same_file_twice_is_refused_by_whatever_name(tmp_path):
    path = written(tmp_path, "a.txt", LINES)
    (tmp_path / "link.txt").symlink_to(path)
    (tmp_path / "hard.txt").hardlink_to(path)
    for other in ("a.txt", "link.txt", "hard.txt"):
        with pytest.raises(CorpusError, match="is given twice"):
            look_at_all([path, tmp_path / other])
    with pytest.raises(CorpusError, match="is given twice"):
        look_at_all([path, path])


def test_what_is_no_file_of_documents_is_refused(tmp_path):
    import os

    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    for name, message in (
        ("folder.jsonl", "is not a regular file"), ("pipe.txt", "is not a regular file"), ("absent.txt", "no such file"),
    ):  # fmt: skip
        with pytest.raises(CorpusError, match=message):
            look_at(tmp_path / name)
    for name, content, message in (
        ("a.txt.gz", LINES, "does not begin as such a file does"), ("a.ndjson", OBJECTS, "is none of .txt, .jsonl"),
        ("a.jsonl.1.gz", gzip.compress(OBJECTS), "is none of .txt, .jsonl"), ("a", LINES, "is none of .txt, .jsonl"),
    ):  # fmt: skip
        with pytest.raises(CorpusError, match=message):
            look_at(written(tmp_path, name, content))


def test_a_file_that_changes_is_noticed(tmp_path):
    path = written(tmp_path, "a.txt", LINES)
    corpus = look_at(path)
    corpus.check_unchanged()
    path.write_bytes(LINES + b"more")
    with pytest.raises(CorpusError, match="has changed while it was read"):
        corpus.check_unchanged()


def test_no_more_than_asked_of_each_file(tmp_path):
    path = written(tmp_path, "a.txt", LINES)
    assert list(texts([path], most=20)) == TEXTS[:2]
    assert list(texts([path])) == TEXTS


def test_the_ranges_are_int64_and_follow_one_another(tmp_path):
    rows = [b'{"text": "a"}', b'{"text": "\\u4e00"}', b'{"id": 1, "text": "b\\n"}', b'{"text" : "c"}', b'{"text": "d"}']
    block = next(read(look_at(written(tmp_path, "a.jsonl", b"\n".join([*rows, b""])))))
    assert block.texts() == ["a", "\u4e00", "b\n", "c", "d"]
    assert (block.documents.stops[:-1] <= block.documents.starts[1:]).all()
    for array in (block.documents.starts, block.documents.stops, block.documents.offsets):
        assert array.dtype == np.int64
