"""What was dropped can be put back, document by document, line by line, stretch by stretch."""

import json
import random

import pytest
from conftest import command

from tp_ext.clean.pipeline import clean
from tp_ext.clean.put_back import put_back
from tp_ext.clean.settings import CleanSettings, Documents, Duplicates, read_settings
from tp_ext.errors import ConfigError, CorpusError, UserError

CONTACT, ADVERTISEMENT, RIGHTS = "联系电话：010-88886666", "立即购买享八折优惠", "版权所有 © 2010-2020 某某科技有限公司"


def sentence(seed, length=120):
    draw = random.Random(seed)
    return "".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(length))


TEXTS = [
    f"{CONTACT}\n{sentence(1)}\n\n{ADVERTISEMENT}\n{sentence(2)}\n{RIGHTS}",
    ADVERTISEMENT,
    "好。",
    sentence(3),
    sentence(3),
    f"{sentence(4)}{sentence(1)}{sentence(5)}",
    f"{CONTACT}\n短",
    f"{CONTACT}\n{ADVERTISEMENT}",
]
ALL = ["contact", "advertisement", "copyright", "short", "exact", "substring"]
SETTINGS = CleanSettings(duplicates=Duplicates(fuzzy=None), compression=False)


def test_no_output_is_written_into_another(cleaned, tmp_path):
    for run in (lambda path: put_back(tmp_path / "out", ["contact"], path),
                lambda path: clean([tmp_path / "a.jsonl"], SETTINGS, path)):  # fmt: skip
        with pytest.raises(UserError, match="is inside"):
            run(tmp_path / "out" / "more")
    assert not (tmp_path / "out" / "more").exists()


@pytest.fixture
def cleaned(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    clean([path], SETTINGS, tmp_path / "out")
    return tmp_path / "out"


def texts_of(folder):
    return [json.loads(line)["text"] for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_all_of_it_is_the_corpus_again(cleaned, tmp_path):
    assert texts_of(cleaned) == [f"{sentence(1)}\n\n{sentence(2)}", sentence(3), sentence(4) + sentence(5)]
    put_back(cleaned, ALL, tmp_path / "back")
    assert texts_of(tmp_path / "back") == TEXTS


def test_some_of_it_is_that_alone(cleaned, tmp_path):
    done = put_back(cleaned, ["contact"], tmp_path / "back")
    rest = [sentence(3), sentence(4) + sentence(5)]
    assert texts_of(tmp_path / "back") == [f"{CONTACT}\n{sentence(1)}\n\n{sentence(2)}", *rest, CONTACT]
    assert done == {"contact": 2}
    done = put_back(cleaned, ["short"], tmp_path / "back")
    assert texts_of(tmp_path / "back")[1:] == ["好。", sentence(3), sentence(4) + sentence(5), "短"]
    assert done == {"short": 2}
    assert put_back(cleaned, ["substring"], tmp_path / "back") == {"substring": 1}
    assert texts_of(tmp_path / "back")[2] == TEXTS[5]


def test_a_reason_that_is_none_and_an_output_without_what_was_dropped_are_refused(cleaned, tmp_path):
    with pytest.raises(ConfigError, match="nothing was dropped for 'contcat'. Did you mean 'contact'"):
        put_back(cleaned, ["contcat"], tmp_path / "back")
    settings = CleanSettings(keep_dropped=False, duplicates=Duplicates(fuzzy=None), documents=Documents(language=None))
    clean([tmp_path / "a.jsonl"], settings, tmp_path / "lean")
    assert not (tmp_path / "lean" / "dropped").exists()
    with pytest.raises(CorpusError, match="is not there"):
        put_back(tmp_path / "lean", ["contact"], tmp_path / "back")


def test_a_stretch_that_goes_elsewhere_keeps_its_copy(tmp_path):
    """Also where little would be left of the document that has it first."""
    first, new = sentence(10, 100), sentence(11, 80)
    path = tmp_path / "a.jsonl"
    texts = [first + sentence(12), first + new, new + sentence(13)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = CleanSettings(duplicates=Duplicates(fuzzy=None), documents=Documents(least_characters=100), compression=False)
    clean([path], settings, tmp_path / "out")
    assert "".join(texts_of(tmp_path / "out")).count(new) == 1
    put_back(tmp_path / "out", ["substring"], tmp_path / "back")
    assert texts_of(tmp_path / "back") == texts


def test_fields_are_put_back_too(tmp_path):
    records = [{"text": text, "url": f"http://{number}"} for number, text in enumerate(TEXTS)]
    records[3]["url"] = "http://\ud800"  # half of a surrogate pair is carried as it came
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = CleanSettings(duplicates=Duplicates(fuzzy=None), compression=False, fields=("url",))
    clean([tmp_path / "a.jsonl"], settings, tmp_path / "out")
    put_back(tmp_path / "out", ALL, tmp_path / "back")
    back = [json.loads(line) for line in (tmp_path / "back" / "00000_a.jsonl").read_text().splitlines()]
    assert [(each["text"], each["url"]) for each in back] == [(each["text"], each["url"]) for each in records]


@pytest.mark.parametrize("name", ["reason", "lines", "cuts", "removed", "text", "offset"])
def test_keys_of_its_own_are_not_taken_along(tmp_path, name):
    (tmp_path / "r.json").write_text(json.dumps({"fields": [name]}))
    with pytest.raises(ConfigError, match=f"fields: {name} is written by the cleaning itself"):
        read_settings(tmp_path / "r.json")


def test_a_classifier_is_written_over_nothing(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("文本\n" * 30, encoding="utf-8")
    done = command("scripts/train_quality.py", "--good", text, "--bad", text, "--output", text)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert text.read_text(encoding="utf-8") == "文本\n" * 30
