import pytest
from conftest import make_texts

from tp_ext.errors import TokenizerError
from tp_ext.tokens.characters import chinese_runs, is_han
from tp_ext.tokens.learn import LEARNERS, RARE, UNCOVERED, jieba_words, sample

CHINESE = [text for text in make_texts(800, 5) if not text.isascii()]


def test_a_sample_is_what_fits_and_depends_on_the_seed_alone():
    size = sum(len(text.encode()) for text in CHINESE)
    drawn = sample(iter(CHINESE), size // 3, 1)
    assert 0.8 * size // 3 < sum(len(text.encode()) for text in drawn) <= size // 3
    assert drawn == sample(iter(CHINESE), size // 3, 1) != sample(iter(CHINESE), size // 3, 2)
    assert [text for text in CHINESE if text in set(drawn)] == drawn  # in the order of the stream
    assert sample(iter(CHINESE), size, 1) == CHINESE


def test_every_text_is_as_likely_in_a_sample():
    texts = [f"第{number}条" for number in range(1000)]
    halves = [sum(int(text[1:-1]) < 500 for text in sample(texts, 1000, seed)) for seed in range(40)]
    count = len(sample(texts, 1000, 0))
    assert sum(halves) / 40 == pytest.approx(count / 2, rel=0.1)


@pytest.mark.parametrize("texts", [[], ["english only", "かな"]])
def test_a_corpus_without_chinese_is_told(texts):
    with pytest.raises(TokenizerError, match=rf"has no Chinese text \({len(texts)} texts"):
        sample(texts, 100, 0)


@pytest.mark.parametrize("kind", LEARNERS)
def test_what_is_frequent_is_learned(kind):
    learned = LEARNERS[kind](CHINESE, 260, 3, 1.0)
    assert len(learned.pieces) <= 260
    assert sorted(learned.pieces) == sorted(learned.worth)
    assert len(set(learned.pieces)) == len(learned.pieces)
    text = "".join(CHINESE)
    assert all(piece in text for piece in learned.pieces)
    assert sum(len(piece) > 1 for piece in learned.pieces) > 40
    assert learned == LEARNERS[kind](CHINESE, 260, 3, 1.0)


def test_rare_characters_and_those_beyond_the_coverage_are_counted():
    learned = LEARNERS["bpe"]([*["人民法院" * 50] * 3, "囧" * 9, "丼"], 50, 5, 0.98)
    assert learned.refused == {UNCOVERED: ["囧"], RARE: ["丼"]}
    assert learned.pieces[:4] == ["人", "民", "法", "院"]
    assert "人民法院" in learned.pieces
    assert not {"囧", "丼"} & set("".join(learned.pieces))


def test_pieces_made_less_often_than_the_least_count_are_left_out():
    texts = ["甲乙丙 丁戊"] * 9 + ["己庚"] * 4
    learned = LEARNERS["bpe"](texts, 50, 5, 1.0)
    assert {"甲乙丙", "丁戊"} <= set(learned.pieces)
    assert "己庚" not in learned.pieces


def test_words_come_from_jieba_by_frequency():
    words = jieba_words(CHINESE, 20, 3)
    assert len(words.worth) == 20
    assert {"劳动合同", "监督管理"} <= set(words.worth)
    assert words.pieces == sorted(words.worth, key=lambda word: -len(word))
    assert jieba_words(["人民政府 " * 5, "海豚"], 9, 3).refused == {RARE: ["海豚"]}
    with pytest.raises(TokenizerError, match="no word that occurs 100 times"):
        jieba_words(CHINESE[:2], 5, 100)


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_least_count_that_nothing_reaches_is_told(kind):
    with pytest.raises(TokenizerError, match="no character of .* occurs 1,000 times; .* '民', occurs 8 times: lower"):
        LEARNERS[kind](["人民民法院"] * 4, 50, 1000, 1.0)


def test_fewer_unigram_pieces_than_characters_are_told_in_our_words():
    count = len(set("".join(run for text in CHINESE for run in chinese_runs(text))))
    with pytest.raises(TokenizerError, match=f"cannot learn 20 pieces .* the {count} characters is one; learn {count}"):
        LEARNERS["unigram"](CHINESE, 20, 1, 1.0)
    assert len(LEARNERS["unigram"](CHINESE, count, 1, 1.0).pieces) == count


def test_a_rare_character_does_not_spoil_its_run():
    learned = LEARNERS["unigram"]([f"人民{rare}法院" for rare in "囧丼凹凸"], 20, 4, 1.0)
    assert set(learned.pieces) >= set("人民法院")
    assert not set("囧丼凹凸") & set("".join(learned.pieces))


def test_a_text_that_the_trainer_cannot_learn_from_is_told_in_our_words(monkeypatch):
    def fail(**settings):
        raise RuntimeError("INTERNAL: trainer_interface.cc(437) [!sentences_.empty()] ")

    monkeypatch.setattr("tp_ext.tokens.learn.sentencepiece.SentencePieceTrainer.train", fail)
    with pytest.raises(TokenizerError, match="9 pieces from 2 characters; take more text, or --learn_type bpe$"):
        LEARNERS["unigram"](["人民"], 9, 1, 1.0)


@pytest.mark.parametrize("learn_type", ["bpe", "unigram"])
def test_punctuation_is_learned_and_joined_with_nothing(learn_type):
    texts = ["人民法院，依法公开。", "人民法院：依法公开！"] * 20
    learned = LEARNERS[learn_type](texts, 40, 5, 1.0)
    assert set("，。：！") <= set(learned.pieces)
    assert all(len(piece) == 1 or is_han(piece) for piece in learned.pieces)
    mixed = LEARNERS["bpe"](texts, 60, 5, 1.0, mixed=True)
    assert any("，" in piece and len(piece) > 1 for piece in mixed.pieces)
