"""Each rule does what the examples beside it say, has its setting, and its line in the documentation."""

import dataclasses
import json

import pytest
from conftest import ROOT

from tp_ext.clean.characters import CHARACTERS
from tp_ext.clean.cleaner import Cleaner
from tp_ext.clean.documents import DOCUMENTS
from tp_ext.clean.ledger_page import WHAT
from tp_ext.clean.line_rules import LINES
from tp_ext.clean.settings import Characters, CleanSettings, Documents, Lines, read_settings
from tp_ext.clean.triggers import worth_a_look
from tp_ext.errors import ConfigError

SECTIONS = {Characters: CHARACTERS, Lines: LINES, Documents: DOCUMENTS}
RULES = [rule for rules in SECTIONS.values() for rule in rules]


def judge_of(rule):
    try:
        return rule.make(rule.example_value)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_examples_are_true(rule):
    judge = judge_of(rule)
    assert rule.spares
    assert rule.drops or rule.changes
    for text, becomes in rule.changes:
        assert judge(text) == (becomes, "")
    for text in rule.drops:
        left, reason = judge(text)
        assert left is None, text
        assert reason in WHAT
    for text in rule.spares:
        assert judge(text) == (text, ""), text


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_a_rule(section):
    assert [field.name for field in dataclasses.fields(section) if field.name != "blocked_hosts"] == [
        rule.name for rule in SECTIONS[section]
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_in_the_documentation(rule):
    lines = (ROOT / "docs" / "cleaning.md").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(f"| `{rule.name}`") for line in lines)


@pytest.mark.parametrize("rule", LINES, ids=lambda rule: rule.name)
def test_no_line_is_missed_by_the_quick_look(rule):
    assert worth_a_look(rule.drops) == [[0]] * len(rule.drops)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("clean*.json")), ids=lambda path: path.stem)
def test_the_recipes_can_be_followed(path):
    assert Cleaner(read_settings(path))("第一条 为了保护公民的权利。").text == "第一条 为了保护公民的权利。"


def test_what_is_wrong_with_a_recipe_is_told_at_once(tmp_path):
    wrong = {"lines": {"contacts": True}, "documents": {"language": 3}, "quality": {"alpha": 0}}
    (tmp_path / "bad.json").write_text(json.dumps(wrong))
    with pytest.raises(ConfigError) as error:
        read_settings(tmp_path / "bad.json")
    assert "bad.lines: no setting named 'contacts'. Did you mean 'contact'?" in str(error.value)
    (tmp_path / "bad.json").write_text('{"documents": {"language": 3}, "quality": {"alpha": 0}}')
    with pytest.raises(ConfigError) as error:
        read_settings(tmp_path / "bad.json")
    assert "documents.language: is 3.0; a share is from 0 to 1" in str(error.value)
    assert "quality.alpha: is 0.0" in str(error.value)


def lines_of(name):
    return (ROOT / "tests" / "clean" / name).read_text(encoding="utf-8").splitlines()


def test_lines_that_advertise_go():
    lines, cleaner = lines_of("advertisement_lines.txt"), Cleaner(CleanSettings())
    left = [line for line in lines if cleaner(line).text is not None]
    assert len(lines) >= 100
    assert len(left) <= 0.05 * len(lines), left


def test_lines_that_mention_such_things_stay():
    lines, cleaner = lines_of("mention_lines.txt"), Cleaner(CleanSettings())
    gone = [line for line in lines if cleaner(line).text is None]
    assert len(lines) >= 200
    assert len(gone) <= 0.02 * len(lines), gone
