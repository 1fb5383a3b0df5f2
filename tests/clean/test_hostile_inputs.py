"""Whatever is wrong with a file, it is counted with its place and its kind, and its good neighbours survive."""

import gzip
import json
import os
import random
import subprocess
import sys

import pytest
import zstandard
from conftest import ROOT, environment

from tp_ext.clean.pipeline import clean
from tp_ext.clean.settings import CleanSettings, Documents, Duplicates
from tp_ext.corpus.files import Form
from tp_ext.errors import CorpusError

PLAIN = CleanSettings(duplicates=Duplicates(exact=False, fuzzy=None, substring=None), compression=False,
                      documents=Documents(least_characters=2, digit_share=None))  # fmt: skip
SLOW = "加微信：" + "a-" * 20000 + "@" * 20000 + "电话" * 20000 + " " * 20000 + "首页 >" * 20000
GOOD = [f"第{number}条是一个好邻居" for number in range(99)]
BOMB = b" " * (3 << 20)


def objects(texts, **more):
    values = ({"id": number, "text": text, **more} for number, text in enumerate(texts))
    return [json.dumps(value, ensure_ascii=False).encode() for value in values]


def among(bad, name="a.jsonl", encoding="utf-8"):
    """The content of a file with a bad record in the midst of 99 good ones."""
    good = objects(GOOD) if "json" in name else [text.encode(encoding) for text in GOOD]
    return name, b"\n".join([*good[:50], bad, *good[50:]]) + b"\n"


def array(bad):
    good = [b"    " + each for each in objects(GOOD)]
    return "a.json", b"[\n" + b",\n".join([*good[:50], b"    " + bad, *good[50:]]) + b"\n]\n"


def nested(depth):
    return b'{"text": ' + b"[" * depth


HOSTILE = {
    "one bad byte": (among("好".encode() + b"\xff", "a.txt"), {"fault": {"not UTF-8": 1}}),
    "half a character": (among("好邻居".encode()[:-1], "a.txt"), {"fault": {"not UTF-8": 1}}),
    "a line in GBK": (among("好邻居好邻居".encode("gbk"), "a.txt"), {"fault": {"not UTF-8": 1}}),
    "an encoded surrogate": (among(b"\xed\xa0\x80\xed\xb0\x80", "a.txt"), {"fault": {"not UTF-8": 1}}),
    "NUL": (among("好\0邻居".encode(), "a.txt"), {"fault": {"NUL": 1}}),
    "NUL in JSON": (among(b'{"text": "a\\u0000b"}'), {"fault": {"NUL": 1}}),
    "a lone surrogate": (among(b'{"text": "\\ud800"}'), {"fault": {"lone surrogate": 1}}),
    "no JSON": (among(b"{text: 1}"), {"fault": {"not JSON": 1}}),
    "two objects in a line": (among(b'{"text": "a"}{"text": "b"}'), {"fault": {"not JSON": 1}}),
    "no object": (among(b'["text"]'), {"fault": {"no object": 1}}),
    "a number": (among(b"NaN"), {"fault": {"no object": 1}}),
    "no text": (among(b'{"content": "a"}'), {"fault": {"no text key": 1}}),
    "null": (among(b'{"text": null}'), {"fault": {"text not a string": 1}}),
    "a number as text": (among(b'{"text": 5}'), {"fault": {"text not a string": 1}}),
    "a list as text": (among(b'{"text": ["a"]}'), {"fault": {"text not a string": 1}}),
    "nested deeply": (among(nested(3900)), {"fault": {"not JSON": 1}}),
    "an empty text": (among(b'{"text": ""}'), {"dropped": {"empty": 1}}),
    "white space": (among("\u3000\t ".encode(), "a.txt"), {"dropped": {"empty": 1}}),
    "an empty line": (among(b""), {"dropped": {"empty": 1}}),
    "a long line": (among(b"x" * 5000, "a.txt"), {"fault": {"too long": 1}}),
    "a long object": (among(b'{"text": "' + b"x" * 5000 + b'"}'), {"fault": {"too long": 1}}),
    "mojibake": (among("中华人民共和国".encode().decode("latin-1").encode(), "a.txt"), {"dropped": {"mojibake": 1}}),
    "lost characters": (among("\ufffd\ufffd好\ufffd".encode(), "a.txt"), {"dropped": {"mojibake": 1}}),
    "controls only": (among(b"\x07\x08\x1b", "a.txt"), {"dropped": {"empty": 1}}),
    "zero width only": (among("\u200b\u200b\ufeff".encode(), "a.txt"), {"dropped": {"empty": 1}}),
    "a carriage return in a line": (among("好\r邻居们".encode(), "a.txt"), {"kept": 100}),
    "in an array no object": (array(b"3"), {"fault": {"no object": 1}}),
    "in an array no JSON": (array(b'{"text": "a" "b"}'), {"fault": {"not JSON": 1}}),
    "in an array a string without an end": (array(b'{"text": "a}'), {"fault": {"not JSON": 1}}),
    "in an array an object without an end": (array(b'{"text": "a"'), {"fault": {"not JSON": 1}}),
    "in an array a brace too many": (array(b'{"text": "a"}}'), {"fault": {"not JSON": 1}}),
    "brackets in strings": (array('{"text": "好邻居]},{[", "id": {"a": [1]}}'.encode()), {"kept": 100}),
}


def cleaned(tmp_path, name, content, **more):
    (tmp_path / name).write_bytes(content)
    return clean([tmp_path / name], PLAIN, tmp_path / "out", fault_limit=1, **more)


def texts_of(folder):
    lines = [line for path in sorted(folder.glob("0*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_record_is_counted_and_its_neighbours_survive(tmp_path, what):
    (name, content), expected = HOSTILE[what]
    counts = cleaned(tmp_path, name, content, longest_line=4000)["all"]
    assert {word: counts[word] for word in expected} == expected
    assert counts["read"] == 100
    assert [text for text in texts_of(tmp_path / "out") if text in GOOD] == GOOD
    if "fault" in expected:
        [fault] = [json.loads(line) for line in (tmp_path / "out" / "faults.jsonl").read_text(encoding="utf-8").splitlines()]
        assert fault["path"] == str(tmp_path / name)
        line = content[fault["offset"] :].split(b"\n")[0 if name != "a.json" else 1]
        assert line.strip(b" ,") == content.split(b"\n")[50 if name != "a.json" else 51].strip(b" ,")


LONG = "\n".join(f"第{number}条 {random.Random(number).random()}号好邻居" for number in range(9000)).encode()
FILES = {
    "a mark at the beginning": ("a.txt", b"\xef\xbb\xbf" + "好邻居".encode(), {"kept": 1}),
    "CRLF": ("a.txt", "好邻居\r\n好邻居们\r\n".encode(), {"kept": 2}),
    "nothing": ("a.txt", b"", {"read": 0}),
    "nothing in gzip": ("a.txt.gz", gzip.compress(b""), {"read": 0}),
    "an empty array": ("a.json", b"[]", {"kept": 0, "fault": {}}),
    "an array cut short": ("a.json", json.dumps([{"text": text} for text in GOOD], indent=1).encode()[:-30],
                           {"kept": 98, "fault": {"not JSON": 1}}),
    "something behind an array": ("a.json", json.dumps([{"text": text} for text in GOOD]).encode() + b" x",
                                  {"kept": 99, "fault": {"not JSON": 1}}),
    "UTF-16 without a mark": ("a.txt", "好邻居\n好邻居\n".encode("utf-16-le"), {"kept": 0}),
    "one line in GBK": ("a.txt", "好邻居们\n".encode("gbk"), {"kept": 0, "fault": {"not UTF-8": 1}}),
    "gzip cut short": ("a.txt.gz", gzip.compress(LONG)[:-100], {"fault": {"damaged": 1}}),
    "zstd cut short": ("a.txt.zst", zstandard.compress(LONG)[:-100], {"fault": {"damaged": 1}}),
    "two frames": ("a.txt.zst", zstandard.compress("好邻居".encode()) + zstandard.compress("们\n".encode()), {"kept": 1}),
    "much from little": ("a.txt.gz", gzip.compress(BOMB + "\n好邻居".encode()), {"kept": 1, "fault": {"too long": 1}}),
    "repeated ids": ("a.jsonl", b"\n".join([b'{"id": 1, "text": "\xe5\xa5\xbd\xe4\xba\xba"}'] * 2), {"kept": 2}),
    "one long document": ("a.txt", "好邻居，".encode() * 400_000, {"read": 1, "fault": {}}),
    "what makes regexes slow": ("a.txt", SLOW.encode(), {"read": 1, "fault": {}}),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_a_strange_file_has_its_outcome(tmp_path, what):
    name, content, expected = FILES[what]
    longest = 2 << 20 if what == "much from little" else 64 << 20
    counts = cleaned(tmp_path, name, content, longest_line=longest)["all"]
    assert {word: counts[word] for word in expected} == expected
    if what.endswith("cut short") and "array" not in what:
        assert texts_of(tmp_path / "out") == LONG.decode().split("\n")[: counts["kept"]]
        assert counts["kept"] > 1000


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "big5"])
def test_a_named_encoding_is_read(tmp_path, encoding):
    name, content = "a.txt", "鄰居很好\n".encode("big5")
    if encoding != "big5":
        _, content = among(b"\xff\xff\xff", name, encoding)
    counts = cleaned(tmp_path, name, content, form=Form(encoding=encoding))["all"]
    assert texts_of(tmp_path / "out") == (GOOD if encoding != "big5" else ["鄰居很好"])
    assert counts["fault"] == ({"wrong encoding": 1} if encoding != "big5" else {})
    if encoding != "big5":
        [fault] = [json.loads(line) for line in (tmp_path / "out" / "faults.jsonl").read_text(encoding="utf-8").splitlines()]
        assert fault["offset"] == content.index(b"\xff\xff\xff")


def test_json_in_gb18030_with_another_key(tmp_path):
    content = '{"content": "俞\\n好的", "title": "a"}\n'.encode("gb18030")
    cleaned(tmp_path, "a.jsonl", content, form=Form(encoding="gb18030", text_key="content"))
    assert texts_of(tmp_path / "out") == ["俞\n好的"]


def test_a_file_may_be_one_document(tmp_path):
    cleaned(tmp_path, "a.txt", "第一行文字\n第二行文字\n".encode(), form=Form(whole=True))
    assert texts_of(tmp_path / "out") == ["第一行文字\n第二行文字"]


REFUSED = {
    "a folder": (lambda path: path.mkdir(), "a.jsonl", "is not a regular file"),
    "a pipe": (os.mkfifo, "a.jsonl", "is not a regular file"),
    "a loop of links": (lambda path: path.symlink_to(path), "a.jsonl", "no such file|symbolic link"),
    "nothing": (lambda path: None, "a.jsonl", "no such file"),
    "another name": (lambda path: path.touch(), "a.doc", "is none of"),
    "UTF-16": (lambda path: path.write_text("好邻居\n", encoding="utf-16"), "a.txt", "is UTF-16"),
    "no gzip": (lambda path: path.write_bytes(b"plain"), "a.txt.gz", "does not begin as such a file does"),
    "an array in another encoding": (lambda path: path.write_bytes(b"[]"), "a.json", "encoding is for lines only"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_file_of_text_is_refused_by_name(tmp_path, what):
    make, name, message = REFUSED[what]
    make(tmp_path / name)
    form = Form(encoding="gbk" if "encoding" in what else "utf-8")
    with pytest.raises((CorpusError, OSError), match=message):
        clean([tmp_path / name], PLAIN, tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "a.txt").touch(mode=0)
    with pytest.raises(CorpusError, match="cannot be read"):
        clean([tmp_path / "a.txt"], PLAIN, tmp_path / "out")


def test_a_full_disk_is_an_error_in_one_line_and_the_command_goes_on_later(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(GOOD * 200), encoding="utf-8")
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.argv[0] = "clean.py"; exec(open({str(ROOT / "scripts" / "clean.py")!r}).read())
"""
    (tmp_path / "recipe.json").write_text('{"duplicates": {"fuzzy": null}}')
    command = ["--input", "a.txt", "--output", "out", "--config", "recipe.json"]
    limited = [sys.executable, "-c", code, *command]
    done = subprocess.run(limited, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    subprocess.run([sys.executable, ROOT / "scripts" / "clean.py", *command], cwd=tmp_path, env=environment(), check=True)
    assert (tmp_path / "out" / "ledger.json").is_file()


def test_a_second_run_on_the_same_folder_is_refused(tmp_path):
    from tp_ext.clean.earlier import KIND
    from tp_ext.output import kept_folder

    (tmp_path / "a.txt").write_text("好邻居", encoding="utf-8")
    with kept_folder(tmp_path / "out", KIND, CorpusError), pytest.raises(CorpusError, match="another process is writing it"):
        clean([tmp_path / "a.txt"], PLAIN, tmp_path / "out")


def test_too_many_faults_are_a_failure_that_names_file_and_byte(tmp_path):
    name, content = among(b"{", "a.jsonl")
    (tmp_path / name).write_bytes(content)
    (tmp_path / "recipe.json").write_text('{"duplicates": {"fuzzy": null}}')
    script = ROOT / "scripts" / "clean.py"
    command = [sys.executable, script, "--input", name, "--output", "out", "--config", "recipe.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert f"a.jsonl: byte {content.index(bytes([10, 123, 10])) + 1}: not JSON" in done.stderr
