"""The classifier tells texts apart, and the keep rule keeps the share that its formula says."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, environment, make_texts

from tp_ext.clean.quality import Classifier, Gate, draw_of, features_of, is_kept, read_classifier, train
from tp_ext.clean.settings import Quality
from tp_ext.errors import ConfigError


@pytest.fixture(scope="module")
def classifier():
    texts = make_texts(400, 1)
    return train(texts[::2], texts[1::2], epochs=3)


def test_it_tells_texts_apart_that_it_has_not_seen(classifier):
    texts = make_texts(100, 2)
    assert classifier.scores(texts[::2]).min() > 0.8
    assert classifier.scores(texts[1::2]).max() < 0.2


def test_numbers_of_good_and_bad_do_not_weigh():
    texts = make_texts(400, 1)
    few = train(texts[:20:2], texts[1::2], epochs=3)
    assert few.scores(make_texts(100, 2)[::2]).mean() > 0.7


def test_features_are_those_of_the_beginning():
    assert len(features_of("一二三四")) == 4 + 3 + 2
    assert features_of("文" * 10_000).tolist() == features_of("文" * 4000).tolist()
    assert len(features_of("")) == 0


@pytest.mark.parametrize("score", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_the_share_that_is_kept_is_the_one_of_the_formula(score):
    count, share = 20_000, (2 - score) ** -9
    kept = sum(is_kept(score, draw_of(0, f"document {number}"), 9) for number in range(count))
    assert abs(kept - share * count) <= 3 * math.sqrt(share * (1 - share) * count)


def test_the_share_is_that_of_a_pareto_variable():
    draws = np.random.default_rng(0).pareto(9, 200_000)
    assert abs(np.mean(draws > 1 - 0.7) - (2 - 0.7) ** -9) < 0.002


def test_draws_depend_on_seed_and_text_alone():
    assert draw_of(0, "文") == draw_of(0, "文") != draw_of(1, "文")
    assert 0 < draw_of(0, "字") < 1


def test_what_is_written_is_read_again(classifier, tmp_path):
    classifier.write(tmp_path / "q.npz")
    text = make_texts(2, 5)
    assert read_classifier(tmp_path / "q.npz").scores(text).tolist() == classifier.scores(text).tolist()
    gate = Gate(Quality(model=str(tmp_path / "q.npz"), alpha=50))
    assert [gate.reason(each) for each in text][1] == "quality"
    (tmp_path / "q.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match="is no file of"):
        read_classifier(tmp_path / "q.npz")
    np.savez(tmp_path / "p.npz", weights=np.zeros(3), bias=0, widths=np.array([1, 2, 3]))
    with pytest.raises(ConfigError, match="is no file of"):
        read_classifier(tmp_path / "p.npz")


SHAPE = {"weights": np.zeros(1 << 18, np.float32), "bias": np.float64(0), "widths": np.array([1, 2, 3])}


@pytest.mark.parametrize("change", [
    {"weights": np.full(1 << 18, np.nan)}, {"bias": np.float64("inf")}, {"weights": np.full(1 << 18, "a")},
    {"weights": np.zeros(1 << 18, complex)}, {"bias": np.zeros(3)}, {"bias": np.array("a")}, {"widths": np.array(3)},
    {"weights": np.array([None])},
])  # fmt: skip
def test_what_is_no_classifier_is_refused(tmp_path, change):
    path = tmp_path / "q.npz"
    np.savez(path, **SHAPE)
    read_classifier(path)
    np.savez(path, **{**SHAPE, **change})
    with pytest.raises(ConfigError, match="is no file of"):
        read_classifier(path)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY", None])
def test_what_is_no_archive_is_refused(tmp_path, content):
    if content is None:
        with open(tmp_path / "q.npz", "wb") as file:
            np.save(file, np.zeros(3))
    else:
        (tmp_path / "q.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="is no file of"):
        read_classifier(tmp_path / "q.npz")


def test_a_classifier_of_nothing_is_undecided():
    assert Classifier(np.zeros(1 << 18, np.float32), 0.0).scores(["", "文"]).tolist() == [0.5, 0.5]


def test_the_command_trains_and_tells_how_well(tmp_path):
    texts = make_texts(400, 1)
    (tmp_path / "good.txt").write_text("\n".join(texts[::2]), encoding="utf-8")
    (tmp_path / "bad.txt").write_text("\n".join(texts[1::2]), encoding="utf-8")
    script = ROOT / "scripts" / "train_quality.py"
    command = [sys.executable, script, "--good", "good.txt", "--bad", "bad.txt", "--output", "q.npz"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert "100.0% are told right" in done.stdout
    objects = [{"content": text} for text in texts]
    (tmp_path / "good.json").write_text(json.dumps(objects[::2]), encoding="utf-8")
    (tmp_path / "bad.json").write_text(json.dumps(objects[1::2]), encoding="utf-8")
    names = {"good.txt": "good.json", "bad.txt": "bad.json", "q.npz": "r.npz"}
    command = [*(names.get(word, word) for word in command), "--text_key", "content"]
    again = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout.replace("q.npz", "r.npz")
    assert (tmp_path / "r.npz").read_bytes() == (tmp_path / "q.npz").read_bytes()
