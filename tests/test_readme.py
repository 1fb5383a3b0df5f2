"""Every command the README and the documentation name exists, with the options they give it."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT, environment

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^\s*(?:\$ )?((?:python|deepspeed|make) (?:[^\n\\]|\\\n)*)", re.MULTILINE)


def commands():
    for page in PAGES:
        for found in COMMAND.findall(page.read_text(encoding="utf-8")):
            yield page.name, found.replace("\\\n", " ").split(" #")[0].strip()


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_the_command_exists(page, line):
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
        return
    script = next(word for word in words if word.endswith(".py"))
    assert (ROOT / script).is_file()
    asked = [sys.executable, script, "--help"]
    done = subprocess.run(asked, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    for option in re.findall(r"(--\w+)", line.split(script)[1]):
        assert option in done.stdout, f"{script} has no {option}"
    for recipe in re.findall(r"recipes/\w+\.json", line):
        assert (ROOT / recipe).is_file()


def test_every_file_of_the_tree_in_the_readme_is_there():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## Where things are")[1]
    names = re.findall(r"^    (\S+\.py|\S+/)", tree, re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).exists(), name
