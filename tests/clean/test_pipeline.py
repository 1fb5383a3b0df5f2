"""From files to clean text: everything accounted for, the same whatever the processes, interruptions and additions."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import zstandard
from conftest import ROOT, environment, make_texts

from tp_ext.clean.pipeline import clean
from tp_ext.clean.put_back import put_back
from tp_ext.clean.settings import CleanSettings, Documents, Duplicates
from tp_ext.data import parts
from tp_ext.errors import ConfigError, CorpusError
from tp_ext.output import write_json, write_manifest

pytest.importorskip("rensa")
ADVERTISEMENT = "长按识别下方二维码，关注我们的微信公众号"


def chinese(count, seed):
    """Long enough and different enough not to be alike."""
    draw = random.Random(seed)
    return ["".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(draw.randint(20, 300))) + "。" for _ in range(count)]


def records(texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


@pytest.fixture
def corpora(tmp_path):
    """Files of every kind with something for each of the rules, several parts each."""
    own = chinese(120, 1)
    mixed = [*own[:40], *make_texts(20, 3), ADVERTISEMENT, own[3], own[5][:-8] + "，有改动。", f"{own[50]}\n{ADVERTISEMENT}"]
    contents = {
        "a.txt": "\n\n".join(own[40:]).encode() + b"\n\xff\xfe bad\n",
        "b.jsonl": records(mixed) + b'{"txt": 1}\n',
        "c.txt.gz": gzip.compress("\n".join([*chinese(60, 2), own[41]]).encode()),
        "d.jsonl.zst": zstandard.compress(records([*chinese(60, 4), own[42] + own[43] + chinese(1, 5)[0]])),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(path):
    content = path.read_bytes()
    content = zstandard.ZstdDecompressor().decompressobj().decompress(content) if path.suffix == ".zst" else content
    return [json.loads(line) for line in content.decode().split("\n")[:-1]]


def accounted(counts):
    return counts["kept"] + sum(sum(counts[word].values()) for word in ("dropped", "duplicate", "fault"))


def test_everything_that_is_read_is_accounted_for(corpora, tmp_path):
    ledger = clean(corpora, CleanSettings(), tmp_path / "out", fault_limit=0.1)
    assert ledger == json.loads((tmp_path / "out" / "ledger.json").read_text(encoding="utf-8"))
    for counts in (ledger["all"], *ledger["files"]):
        assert counts["read"] == accounted(counts)
    assert [each["read"] for each in ledger["files"]] == [160, 65, 61, 61]
    counts = ledger["all"]
    assert counts["fault"] == {"no text key": 1, "not UTF-8": 1}
    assert counts["duplicate"] == {"exact": 3, "fuzzy": 1}
    assert counts["dropped"]["advertisement"] == 1
    assert counts["dropped"]["empty"] == 79
    assert counts["lines"] == {"advertisement": 2}
    for entry in ledger["files"]:
        kept = lines_of(tmp_path / "out" / entry["output"])
        assert len(kept) == entry["kept"]
        assert [each["offset"] for each in kept] == sorted(each["offset"] for each in kept)
        assert sum(len(each["text"]) for each in kept) == entry["characters_kept"]


def test_the_number_of_processes_changes_nothing(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 3000)
    ledgers = [clean(corpora, CleanSettings(), tmp_path / str(n), n, fault_limit=0.1) for n in (1, 2)]
    assert ledgers[0] == ledgers[1]
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_new_files_are_all_that_is_read_and_give_what_a_run_over_all_gives(corpora, tmp_path):
    clean(corpora, CleanSettings(), tmp_path / "whole", fault_limit=0.1)
    for count in (1, 2, 3):
        clean(corpora[:count], CleanSettings(), tmp_path / "grown", fault_limit=0.1)
    seen = []
    clean(corpora, CleanSettings(), tmp_path / "grown", fault_limit=0.1, progress=lambda done, total: seen.append(total))
    assert seen[-1] == corpora[3].stat().st_size
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "grown")
    again = files_of(tmp_path / "grown")
    clean(corpora, CleanSettings(), tmp_path / "grown", fault_limit=0.1)
    assert files_of(tmp_path / "grown") == again


def test_other_settings_or_another_file_start_anew(corpora, tmp_path):
    clean(corpora[:2], CleanSettings(), tmp_path / "out", fault_limit=0.1)
    other = CleanSettings(documents=Documents(least_characters=100))
    assert clean(corpora[:2], other, tmp_path / "out", fault_limit=0.1)["all"]["dropped"]["short"] > 20
    corpora[0].write_text("第一条 为了保护公民的合法权益，制定本法。\n", encoding="utf-8")
    assert clean(corpora[:2], other, tmp_path / "out", fault_limit=0.1)["files"][0]["read"] == 1


def test_documents_of_earlier_drops_are_duplicates(corpora, tmp_path):
    clean(corpora[:1], CleanSettings(), tmp_path / "first", fault_limit=0.1)
    ledger = clean(corpora[1:], CleanSettings(), tmp_path / "second", against=[tmp_path / "first"], fault_limit=0.1)
    whole = clean(corpora, CleanSettings(), tmp_path / "whole", fault_limit=0.1)
    assert [each["duplicate"] for each in ledger["files"]] == [each["duplicate"] for each in whole["files"][1:]]
    assert [each["kept"] for each in ledger["files"]] == [each["kept"] for each in whole["files"][1:]]
    shutil.copytree(tmp_path / "first", tmp_path / "third")
    (tmp_path / "third" / "manifest.json").write_text('{"kind": "tokens"}')
    with pytest.raises(CorpusError, match="is no output"):
        clean(corpora[1:], CleanSettings(), tmp_path / "fourth", against=[tmp_path / "third"])


def test_drops_whose_signatures_are_absent_or_others_are_refused(corpora, tmp_path):
    plain = CleanSettings(duplicates=Duplicates(fuzzy=None))
    clean(corpora[:1], plain, tmp_path / "plain", fault_limit=0.1)
    clean(corpora[1:2], plain, tmp_path / "more", against=[tmp_path / "plain"], fault_limit=0.1)
    with pytest.raises(CorpusError, match='was cleaned with "fuzzy": null'):
        clean(corpora[1:2], CleanSettings(), tmp_path / "out", against=[tmp_path / "plain"])
    clean(corpora[:1], CleanSettings(), tmp_path / "first", fault_limit=0.1)
    change_ledger(tmp_path / "first", lambda ledger: ledger["versions"].update(rensa="0.4.9"))
    with pytest.raises(CorpusError, match="its signatures were made with"):
        clean(corpora[1:2], CleanSettings(), tmp_path / "out", against=[tmp_path / "first"])


def change_ledger(folder, change, listed=True):
    """With a manifest that agrees, as one who means harm would write it, and that lists the changed files."""
    ledger = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
    change(ledger)
    write_json(folder / "ledger.json", ledger)
    write_manifest(folder, "clean text", {"run": "0"})
    if not listed:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        del manifest["files"][ledger["files"][0]["output"]]
        write_json(folder / "manifest.json", manifest)


LEDGERS = {
    **{f"without {name}": (lambda ledger, name=name: ledger.pop(name), "is no ledger")
       for name in ("run", "settings", "versions", "all", "files", "samples")},
    "files that are none": (lambda ledger: ledger.update(files="abc"), "is no ledger"),
    "settings that are none": (lambda ledger: ledger.update(settings=3), "is no ledger"),
    "counts that are none": (lambda ledger: ledger.update(all={}), "is no ledger"),
    "a file without output": (lambda ledger: ledger["files"][0].pop("output"), "is no ledger"),
    "an output elsewhere": (lambda ledger: ledger["files"][0].update(output="../../a.txt"), "is no ledger"),
    "an output anywhere": (lambda ledger: ledger["files"][0].update(output="/a.txt"), "is no ledger"),
    "an output that is absent": (lambda ledger: ledger["files"][0].update(output="b.jsonl"), "does not list b.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("what", LEDGERS)
def test_a_ledger_that_is_none_is_refused_and_nothing_is_written_elsewhere(tmp_path, what):
    change, message = LEDGERS[what]
    (tmp_path / "a.txt").write_text("\n".join(chinese(5, 1)), encoding="utf-8")
    clean([tmp_path / "a.txt"], CleanSettings(compression=False), tmp_path / "in" / "first")
    change_ledger(tmp_path / "in" / "first", change)
    before = files_of(tmp_path)
    with pytest.raises(CorpusError, match=message):
        clean([tmp_path / "a.txt"], CleanSettings(), tmp_path / "in" / "out", against=[tmp_path / "in" / "first"])
    with pytest.raises(CorpusError, match=message):
        put_back(tmp_path / "in" / "first", ["contact"], tmp_path / "in" / "back")
    assert files_of(tmp_path) == before


def test_a_manifest_that_does_not_list_its_documents_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(chinese(5, 1)), encoding="utf-8")
    clean([tmp_path / "a.txt"], CleanSettings(), tmp_path / "first")
    change_ledger(tmp_path / "first", lambda ledger: None, listed=False)
    with pytest.raises(CorpusError, match="does not list 00000_a.jsonl.zst"):
        clean([tmp_path / "a.txt"], CleanSettings(), tmp_path / "out", against=[tmp_path / "first"])


@pytest.mark.parametrize(("name", "message"), [
    ("ledger.json", "has changed since"), ("index/digests.bin", "has changed since"),
    ("index/uncut.jsonl", "has changed since"), ("00000_a.jsonl.zst", "00000_a.jsonl.zst: damaged"),
    ("00000_a.jsonl", "is no record of"),
])  # fmt: skip
def test_an_earlier_drop_with_a_byte_changed_is_refused(tmp_path, name, message):
    texts = chinese(50, 1)
    (tmp_path / "a.txt").write_text("\n".join([*texts, texts[0] + texts[1]]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(chinese(5, 2)), encoding="utf-8")
    settings = CleanSettings(compression=name.endswith(".zst"))
    first = tmp_path / "first"
    clean([tmp_path / "a.txt"], settings, first)
    content = bytearray((first / name).read_bytes())
    content[len(content) // 2 if name.endswith(".zst") else 0] ^= 0x55
    (first / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        clean([tmp_path / "b.txt"], settings, tmp_path / "out", against=[first])
    with pytest.raises(CorpusError, match="has changed since"):
        put_back(first, ["contact"], tmp_path / "back")
    ledger = clean([tmp_path / "a.txt", tmp_path / "b.txt"], settings, first)  # starts anew
    clean([tmp_path / "a.txt", tmp_path / "b.txt"], settings, tmp_path / "whole")
    assert {**files_of(first), "manifest.json": b""} == {**files_of(tmp_path / "whole"), "manifest.json": b""}
    assert ledger["all"]["read"] == 56


def test_stretches_that_came_before_are_cut_out_and_one_copy_stays(tmp_path):
    first, second, third = (text[:-1] for text in chinese(3, 9))
    common = chinese(1, 10)[0][:20] * 4 + "".join(chinese(4, 11))[:100]
    texts = [first + common + second, third + common, common[:60] + second[:5] + third[:20], common[5:150]]
    (tmp_path / "a.jsonl").write_bytes(records(texts))
    settings = CleanSettings(duplicates=Duplicates(fuzzy=None), compression=False, documents=Documents(repeated_ngrams=None))
    ledger = clean([tmp_path / "a.jsonl"], settings, tmp_path / "out")
    kept = [each["text"] for each in lines_of(tmp_path / "out" / ledger["files"][0]["output"])]
    assert kept == [texts[0], third, texts[2]]
    assert ledger["all"]["duplicate"] == {"substring": 1}
    assert ledger["all"]["changed"] == {"substring": 1}
    [cut, gone] = lines_of(tmp_path / "out" / "duplicates" / ledger["files"][0]["output"])
    assert cut["cuts"] == [[len(third), common]]
    assert gone["text"] == texts[3]


def test_too_many_faults_end_the_run_with_their_places_and_cost_no_second_reading(corpora, tmp_path):
    with pytest.raises(CorpusError, match=r"a.txt: byte \d+: not UTF-8"):
        clean(corpora, CleanSettings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    seen = []
    clean(corpora, CleanSettings(), tmp_path / "out", fault_limit=0.1, progress=lambda *each: seen.append(each))
    assert not seen
    faults = [json.loads(line)["kind"] for line in (tmp_path / "out" / "faults.jsonl").read_text().splitlines()]
    assert sorted(faults) == ["no text key", "not UTF-8"]


def test_what_cannot_be_done_is_refused(corpora, tmp_path):
    clean(corpora[:1], CleanSettings(compression=False), tmp_path / "out", fault_limit=0.1)
    with pytest.raises(ConfigError, match="is in the output folder"):
        clean([next((tmp_path / "out").glob("*.jsonl"))], CleanSettings(), tmp_path / "out")
    with pytest.raises(CorpusError, match="is given twice"):
        clean([corpora[0], corpora[0]], CleanSettings(), tmp_path / "new")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    with pytest.raises(CorpusError, match="not a 'clean text' written"):
        clean(corpora, CleanSettings(), tmp_path / "mine")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path, processes):
    texts = chinese(3000, 20)
    (tmp_path / "a.jsonl").write_bytes(records(texts))
    (tmp_path / "b.txt").write_text("\n".join([*texts[:100], *chinese(500, 21)]), encoding="utf-8")
    recipe = ROOT / "recipes" / "clean_zh.json"
    code = ("import sys; from tp_ext.data import parts; parts.PART_BYTES = 60000\n"
            f"sys.argv[0] = 'clean.py'; exec(open({str(ROOT / 'scripts' / 'clean.py')!r}).read())")  # fmt: skip
    command = [sys.executable, "-c", code, "--input", "a.jsonl", "b.txt", "--config", recipe, "--processes_num", processes]
    subprocess.run([*command, "--output", "whole"], cwd=tmp_path, env=environment(), check=True)
    parts_list = tmp_path / ".killed.work" / "staged" / "parts.jsonl"
    run = subprocess.Popen([*command, "--output", "killed"], cwd=tmp_path, env=environment(), start_new_session=True)
    while run.poll() is None and not (parts_list.is_file() and parts_list.read_bytes().count(b"\n") > 3):
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "killed").exists()
    with open(parts_list, "ab") as file:
        file.write(b'{"bytes": [')  # half written
    subprocess.run([*command, "--output", "killed"], cwd=tmp_path, env=environment(), check=True)
    whole, killed = files_of(tmp_path / "whole"), files_of(tmp_path / "killed")
    assert {name for name in whole if whole[name] != killed.get(name)} <= {"manifest.json"}
    assert len(whole) == len(killed)
