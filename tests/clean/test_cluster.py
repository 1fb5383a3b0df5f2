"""The blocks of datatrove give what the local command gives, byte for byte."""

import gzip
import json

import pytest
from conftest import environment
from test_pipeline import chinese, files_of, records

from tp_ext.clean import units as units_module
from tp_ext.clean.pipeline import clean
from tp_ext.clean.settings import CleanSettings
from tp_ext.clean.units import plan
from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.corpus.files import UTF8
from tp_ext.data import parts
from tp_ext.errors import CorpusError

pytest.importorskip("rensa")
NOWHERE = {"against": [], "longest_line": LONGEST_LINE, "form": UTF8}


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 20_000)
    monkeypatch.setattr(units_module, "PART_BYTES", 20_000)
    texts = chinese(200, 1)
    (tmp_path / "a.jsonl").write_bytes(records([*texts, "立即购买享八折优惠"]))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join([*texts[:20], *chinese(150, 2)]).encode()))
    return [tmp_path / "a.jsonl", tmp_path / "b.txt.gz"]


def output_of(folder):
    return {name: content for name, content in files_of(folder).items() if name != "manifest.json"}


@pytest.mark.parametrize("tasks", [1, 3])
def test_units_in_any_number_of_tasks_give_what_one_process_gives(corpora, tmp_path, tasks):
    clean(corpora, CleanSettings(), tmp_path / "whole")
    units = plan(corpora, CleanSettings(), tmp_path / "work", **NOWHERE)
    with pytest.raises(CorpusError, match="is missing; not all tasks have ended"):
        clean(corpora, CleanSettings(), tmp_path / "out", results=units.results())
    for rank in reversed(range(tasks)):
        assert list(units.work(rank, tasks))
        assert not list(units.work(rank, tasks)), "nothing is done twice"
    clean(corpora, CleanSettings(), tmp_path / "out", results=units.results())
    assert output_of(tmp_path / "out") == output_of(tmp_path / "whole")


@pytest.mark.parametrize("change", [lambda whole: whole[:100], lambda whole: whole[:-1], lambda whole: b"{}\n" + whole])
def test_a_unit_that_is_damaged_is_named(corpora, tmp_path, change):
    units = plan(corpora, CleanSettings(), tmp_path / "work", **NOWHERE)
    assert list(units.work(0, 1))
    path = units.folder / "units" / "0000000"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CorpusError, match="units/0000000: damaged; remove it"):
        clean(corpora, CleanSettings(), tmp_path / "out", results=units.results())


def test_other_settings_or_files_have_another_place(corpora, tmp_path):
    settings = (CleanSettings(), CleanSettings(fields=("url",)))
    work = tmp_path / "work"
    places = {plan(paths, each, work, **NOWHERE).folder for paths in (corpora, corpora[:1]) for each in settings}
    assert len(places) == 4
    units = plan(corpora, CleanSettings(), tmp_path / "work", **NOWHERE)
    corpora[0].write_text("{}")
    with pytest.raises(CorpusError, match="has changed since the run was planned"):
        type(units)(units.folder)


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_executors(corpora, tmp_path, kind, monkeypatch):
    pytest.importorskip("datatrove")
    if kind == "ray":
        variables = {"env_vars": dict(environment())}
        pytest.importorskip("ray").init(num_cpus=2, include_dashboard=False, runtime_env=variables)
        monkeypatch.undo()  # its processes know nothing of smaller parts
    from tp_ext.clean.cluster import executors

    clean(corpora, CleanSettings(), tmp_path / "whole")
    units = plan(corpora, CleanSettings(), tmp_path / "work", **NOWHERE)
    for executor in executors(kind, units, tmp_path / "out", 2, 1, [], 0.001):
        executor.run()
    assert output_of(tmp_path / "out") == output_of(tmp_path / "whole")


def test_the_rules_as_a_block(tmp_path):
    pytest.importorskip("datatrove")
    from datatrove.data import Document

    from tp_ext.clean.cluster import Rules

    texts = ["第一条 为了保护公民的权利。\n立即购买享八折优惠", "English only.", "第二条 为了保护公民的权利。"] * 100
    block = Rules(CleanSettings())
    documents = (Document(text=text, id=str(number)) for number, text in enumerate(texts))
    kept = [document.text for document in block.run(documents)]
    assert kept == ["第一条 为了保护公民的权利。", "第二条 为了保护公民的权利。"] * 100
    assert json.loads(block.stats.to_json())["stats"]["dropped_language"] == 100
