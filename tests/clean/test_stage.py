"""What documents take along, what hosts are blocked, and samples that do not depend on who counts."""

import json
import random

import pytest

from tp_ext.clean.hosts import Hosts
from tp_ext.clean.pipeline import clean
from tp_ext.clean.settings import CleanSettings, Documents, Duplicates
from tp_ext.clean.tally import DROPPED, SAMPLES, Tally, read_tally
from tp_ext.errors import ConfigError

TEXT = "第{}条 为了保护公民的合法权益，制定本法。"
PLAIN = {"compression": False, "duplicates": Duplicates(fuzzy=None, substring=None)}


def test_a_host_is_blocked_with_all_below_it(tmp_path):
    (tmp_path / "hosts").write_text("# advertisements\nads.cn\nwww.spam.com.cn  # too\n")
    hosts = Hosts(str(tmp_path / "hosts"))
    blocked = ["http://ads.cn/1", "https://a.b.ADS.cn:80/x", "ads.cn/x", "http://www.spam.com.cn", "http://user@ads.cn./"]
    free = ["http://myads.cn", "http://spam.com.cn/ads.cn", "no url", "", None, 5, "http://[broken"]
    assert all(map(hosts.block, blocked))
    assert not any(map(hosts.block, free))
    assert not Hosts(None)
    with pytest.raises(ConfigError, match="cannot be read"):
        Hosts(str(tmp_path / "none"))


def test_documents_take_fields_along_and_blocked_ones_go(tmp_path):
    (tmp_path / "hosts").write_text("ads.cn\n")
    rows = [{"text": TEXT.format("一"), "meta": {"pile_set_name": "x"}, "url": "http://a.cn", "n": 1},
            {"url": "http://ads.cn/2", "text": TEXT.format("二")},
            {"text": TEXT.format("三"), "offset": "mine"}]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = CleanSettings(fields=("meta", "offset"), documents=Documents(blocked_hosts=str(tmp_path / "hosts")), **PLAIN)
    ledger = clean([tmp_path / "a.jsonl"], settings, tmp_path / "out")
    kept = [json.loads(line) for line in (tmp_path / "out" / ledger["files"][0]["output"]).read_text().splitlines()]
    source = str(tmp_path / "a.jsonl")
    assert kept[0] == {"text": rows[0]["text"], "source": source, "offset": 0, "meta": {"pile_set_name": "x"}}
    assert kept[1] == {"text": rows[2]["text"], "source": source, "offset": kept[1]["offset"]}
    assert ledger["all"]["dropped"] == {"blocked host": 1}
    (tmp_path / "hosts").write_text("")
    again = clean([tmp_path / "a.jsonl"], settings, tmp_path / "out")
    assert again["all"]["kept"] == 3, "the list of hosts is part of the run's id"


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "今天天气很好。", "meta": {"score": NaN, "NaN": [1e999, "NaN"]}}\n')
    clean([tmp_path / "a.jsonl"], CleanSettings(fields=("meta",), **PLAIN), tmp_path / "out")

    def refuse(name):
        raise AssertionError(name)

    line = next((tmp_path / "out").glob("*.jsonl")).read_text()
    assert json.loads(line, parse_constant=refuse)["meta"] == {"score": None, "NaN": [None, "NaN"]}


def test_a_file_of_the_settings_that_is_absent_is_told_by_its_setting(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ConfigError, match="documents.blocked_hosts: nowhere: no such file"):
        clean([tmp_path / "a.txt"], CleanSettings(documents=Documents(blocked_hosts="nowhere")), tmp_path / "out")


def test_samples_are_the_same_however_the_work_is_shared_out():
    found = [("short", "a.txt", number, f"文{number}") for number in range(200)]
    whole = Tally()
    for each in found:
        whole.sample(DROPPED, *each)
    random.Random(0).shuffle(found)
    parts = [Tally(), Tally(), Tally()]
    for place, each in enumerate(found):
        parts[place % 3].sample(DROPPED, *each)
        parts[place % 3].count(DROPPED, "short")
    total = Tally()
    for part in parts:
        total.add(read_tally(json.loads(json.dumps(part.write()))))
    assert total.samples == whole.samples
    assert len(total.samples[DROPPED]["short"]) == SAMPLES
    assert total.sum_of(DROPPED) == 200
