import io
import unicodedata

import pytest
import sentencepiece
from conftest import make_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError
from tp_ext.tokens import battery
from tp_ext.tokens.candidates import IN_BASE, NO_ROOM, SEALED, Candidates, sift
from tp_ext.tokens.characters import HAN, has_chinese, is_chinese
from tp_ext.tokens.growers import BRIDGE, CHARACTER, FILLED, OFFERED, PAD, RESERVED, grower_of
from tp_ext.tokens.merge import check_file, merge
from tp_ext.tokens.prove import Proof, cut
from tp_ext.tokens.tokenizer import open_tokenizer

ENGLISH = [text for text in make_texts(600, 3) if text.isascii()] + battery.ENGLISH.splitlines() * 3
CHINESE = [text for text in make_texts(600, 4) if not text.isascii()] + battery.CHINESE.splitlines()
WORDS = "中华人民共和国 越来越 人民法院 人民 共和国 法院 意大利 大利亚 澳大利亚 越来 应当 國際".split()
LETTERS = "中华人民共和国越来法院意大利澳应当國際的，。〔 aé1\t"


def train(path, texts, **changes):
    """A base model without Chinese."""
    output = io.BytesIO()
    usual = {"vocab_size": 700, "model_type": "bpe", "byte_fallback": True, "split_digits": True, "minloglevel": 2,
             "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "num_threads": 1,
             "allow_whitespace_only_pieces": True, "character_coverage": 1.0, "hard_vocab_limit": False}  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=output, **{**usual, **changes})
    path.write_bytes(output.getvalue())
    return open_tokenizer(path)


BASES = {
    "bpe": {},
    "bpe without prefix": {"add_dummy_prefix": False},
    "bpe with own symbols": {"user_defined_symbols": ["<tool>", "〔"], "control_symbols": ["<turn>"]},
    "bpe with padding": {"pad_id": 3},
    "bpe without bytes": {"byte_fallback": False},
    "unigram": {"model_type": "unigram", "vocab_size": 600},
    "unigram with nfkc": {"model_type": "unigram", "vocab_size": 600, "normalization_rule_name": "nmt_nfkc",
                          "remove_extra_whitespaces": True, "byte_fallback": False},
}  # fmt: skip


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory):
    texts = ENGLISH + battery.OTHERS.splitlines()
    return train(tmp_path_factory.mktemp("base") / "base.model", texts, **BASES[request.param])


def offered(*words, order=None):
    return Candidates(list(order or words), list(words), "test")


def merged_with(base, tmp_path, words, **options):
    known = {base.piece(index) for index in range(base.vocab_size)}
    chosen = sift([offered(*words)], known.__contains__, base.normalize)
    result = merge(base, chosen, **options)
    check_file(base.content, result.content)
    path = tmp_path / "merged.model"
    path.write_bytes(result.content)
    return open_tokenizer(path), result.added


@pytest.fixture(scope="module")
def merged(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged")
    return merged_with(base, folder, WORDS, size=base.vocab_size + 200, corpus=CHINESE, multiple_of=1)[0]


def test_the_proof_holds_on_all_the_text_there_is(base, merged):
    proof = Proof(base, merged)
    proof.vocabulary()
    for name, text in battery.TEXTS.items():
        for line in cut(base, merged, text.splitlines()):
            proof.line(name, line)
    for line in cut(base, merged, CHINESE + ENGLISH):
        proof.line("corpus", line)
    assert proof.differences == []
    assert proof.lines["english"] == len(battery.ENGLISH.splitlines())


TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(LETTERS)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_any_text_is_the_bases_but_for_its_chinese(base, merged, text):
    before, after = base.encode(text), merged.encode(text)
    if not has_chinese(unicodedata.normalize("NFKC", text)):
        assert after == before
    if base.special_ids.isdisjoint(before):  # no unknown character, which a longer vocabulary may well know
        assert len(after) <= len(before)
        assert merged.decode(after) == base.decode(before)
    proof = Proof(base, merged)
    proof.line("text", next(iter(cut(base, merged, [text]))))
    assert proof.differences == []


def test_every_piece_is_what_its_own_text_gives_and_ids_fall_with_the_scores(base, merged):
    model = ModelProto.FromString(merged.content)
    assert [piece.piece for piece in model.pieces[: base.vocab_size]] == [
        base.piece(index) for index in range(base.vocab_size)]  # fmt: skip
    added = range(base.vocab_size, merged.vocab_size)
    texts = {index: merged.text(index) for index in added if merged.text(index) is not None}
    assert len(texts) > 150
    assert merged.encode_inside(list(texts.values())) == [[index] for index in texts]
    assert all(is_chinese(text) for text in texts.values())
    scores = [model.pieces[index].score for index in texts]
    assert scores == sorted(set(scores), reverse=True)
    assert set(WORDS) <= set(texts.values())


def test_a_piece_that_nothing_leads_to_gets_a_bridge(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    _, added = merged_with(base, tmp_path, ["越来越", "意大利"])
    origins = {each.piece: each.origin for each in added}
    assert origins["越来越"] == origins["意大利"] == OFFERED
    assert {piece for piece, origin in origins.items() if origin == CHARACTER} == set("越来意大利")
    bridges = [piece for piece, origin in origins.items() if origin == BRIDGE]
    assert len(bridges) == 2
    assert set(bridges) <= {"越来", "来越", "意大", "大利"}


def test_longer_texts_are_never_cut_into_more(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    tokenizer, _ = merged_with(base, tmp_path, WORDS)
    text = "澳大利亚和意大利的人民法院越来越多，中华人民共和国应当依法。"
    assert len(tokenizer.encode(text)) < len(base.encode(text)) / 2


def test_size_is_reached_exactly_with_padding_and_reserved_pieces(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    size = (base.vocab_size // 64 + 3) * 64
    tokenizer, added = merged_with(base, tmp_path, WORDS, size=size, corpus=CHINESE, multiple_of=64)
    assert tokenizer.vocab_size == size
    assert tokenizer.piece(tokenizer.pad_id) == "<pad>"
    assert [each.origin for each in added].count(PAD) == 1
    assert {each.origin for each in added} >= {FILLED, OFFERED}
    smaller, added = merged_with(base, tmp_path, WORDS, multiple_of=64)
    assert smaller.vocab_size % 64 == 0
    reserved = [base.vocab_size + place for place, each in enumerate(added) if each.origin == RESERVED]
    assert reserved
    assert {*reserved, smaller.pad_id} <= smaller.special_ids


def test_the_worthiest_stay_when_there_is_little_room(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    tokenizer, added = merged_with(base, tmp_path, ["人民", "法院", *WORDS], size=base.vocab_size + 9)
    pieces = [each.piece for each in added]
    assert tokenizer.vocab_size <= base.vocab_size + 9
    assert {"人民", "法院"} <= set(pieces)
    assert "中华人民共和国" not in pieces


@pytest.mark.parametrize("with_bytes", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_what_normalizes_to_chinese_is_chinese(tmp_path, kind, with_bytes):
    """㈱ is 株 to an NFKC base, and ， a comma."""
    base = train(tmp_path / "base.model", ENGLISH, model_type=kind, vocab_size=600, byte_fallback=with_bytes,
                 normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True)  # fmt: skip
    new, _ = merged_with(base, tmp_path, ["株", "優", "月", "人民"])
    signs = ["㈱", "㊝ the module", "㋀", "a㈱b", "㈱人民㋿"]
    assert all(new.encode(sign) != base.encode(sign) for sign in signs)
    assert new.encode("the module， returns（a）") == base.encode("the module, returns(a)")
    proof = Proof(base, new)
    for line in cut(base, new, [*signs, "the module， returns"]):
        proof.line("signs", line)
    proof.finish()


@pytest.fixture
def without_bytes(tmp_path):
    """A base that loses what it does not know, and the same with pieces."""
    base = train(tmp_path / "base.model", ENGLISH, byte_fallback=False)
    return base, merged_with(base, tmp_path, WORDS)[0]


def test_lines_with_unknown_characters_are_compared_as_far_as_the_base_knows_them(without_bytes):
    base, new = without_bytes
    lines = ["the 人民法院 module", "か人민民", "か민", "a〔中华〕b 龘"]
    assert [len(ids) for ids in base.encode_batch(lines[1:3])] == [2, 2]
    assert len(new.encode("か人민民")) > 2  # one <unk> for all four before
    proof = Proof(base, new)
    for line in cut(base, new, lines):
        proof.line("lines", line)
    proof.finish()
    assert (proof.lines, proof.in_part) == ({"lines": 4}, {"lines": 3})
    assert "3 lines with Chinese have characters that the base does not know" in proof.notes[0]


def loses_a_piece(model):
    next(piece for piece in model.pieces if piece.piece == "▁the").type = ModelProto.SentencePiece.UNUSED


def loses_spaces(model):
    model.normalizer_spec.remove_extra_whitespaces = True


def knows_kana(model):
    model.pieces.add(piece="か", score=-1e6)


@pytest.mark.parametrize(("text", "fault", "message"), [
    ("the 人", loses_a_piece, "takes .* tokens instead of (.|\n)*cut differently beside its Chinese"),
    ("the  人民", loses_spaces, "comes back differently"),
    ("か민", knows_kana, "has no Chinese and is cut differently"),
    ("か民민", knows_kana, "cut differently beside its Chinese"),
])  # fmt: skip
def test_a_line_with_unknown_characters_can_fail(without_bytes, tmp_path, text, fault, message):
    base, new = without_bytes
    model = ModelProto.FromString(new.content)
    fault(model)
    (tmp_path / "worse.model").write_bytes(model.SerializeToString())
    proof = Proof(base, open_tokenizer(tmp_path / "worse.model"))
    proof.line("text", next(cut(base, proof.merged, [text])))
    with pytest.raises(TokenizerError, match=message):
        proof.finish()


def test_what_finds_no_room_is_refused_for_that(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    result = merge(base, offered(*reversed(WORDS)), size=base.vocab_size + 9)
    taken = {each.piece for each in result.added}
    assert result.refused == {NO_ROOM: [word for word in reversed(WORDS) if word not in taken]}
    assert "中华人民共和国" in result.refused[NO_ROOM]
    assert merge(base, offered(*WORDS)).refused == {}


OWN = ["中国", "国"]
SEALED_BY = {
    "user-defined": {"user_defined_symbols": OWN}, "control": {"control_symbols": OWN},
    "unigram": {"user_defined_symbols": OWN, "model_type": "unigram", "vocab_size": 600},
}  # fmt: skip


@pytest.mark.parametrize("kind", [*SEALED_BY, "unused"])
def test_pieces_that_the_bases_own_seal_off_are_refused(tmp_path, kind):
    base = train(tmp_path / "base.model", ENGLISH, **SEALED_BY.get(kind, SEALED_BY["user-defined"]))
    if kind == "unused":
        model = ModelProto.FromString(base.content)
        for piece in model.pieces:
            if piece.piece in OWN:
                piece.type = piece.UNUSED
        base.path.write_bytes(model.SerializeToString())
        base = open_tokenizer(base.path)
    words = ["中国", "国", "中国人", "大中国", "国人", "人民", "中国人民"]
    known = {base.piece(index) for index in range(base.vocab_size)}
    chosen = sift([offered(*words)], known.__contains__, base.normalize)
    result = merge(base, chosen, pad=False)
    (tmp_path / "merged.model").write_bytes(result.content)
    new = open_tokenizer(tmp_path / "merged.model")
    pieces = [each.piece for each in result.added]
    assert len(set(pieces)) == len(pieces)
    assert "人民" in pieces
    if kind in ("user-defined", "unigram"):
        assert result.refused == {SEALED: ["中国人", "大中国", "国人", "中国人民"]}
        assert set(pieces) <= {"人", "民", "人民", "大", "中"}
    assert chosen.refused == {IN_BASE: OWN}
    proof = Proof(base, new)
    proof.vocabulary()
    for line in cut(base, new, ["中国人民 大中国，国人中国", "人民 the 国人"]):
        proof.line("text", line)
    proof.finish()


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), float("inf")])
def test_base_scores_that_are_no_numbers_are_told(tmp_path, score):
    base = train(tmp_path / "base.model", ENGLISH)
    model = ModelProto.FromString(base.content)
    model.pieces[400].score = score
    base.path.write_bytes(model.SerializeToString())
    with pytest.raises(TokenizerError, match=f"piece .* has the score {score}; a finite number is needed"):
        merge(open_tokenizer(base.path), offered(*WORDS))


def rescored(base, score):
    """The base with one more piece of this score."""
    model = ModelProto.FromString(base.content)
    model.pieces.add(piece="文", score=score)
    base.path.write_bytes(model.SerializeToString())
    return open_tokenizer(base.path)


def test_below_what_float32_counts_exactly_scores_stay_distinct(tmp_path):
    base = rescored(train(tmp_path / "base.model", ENGLISH), -float(1 << 24))
    tokenizer, _ = merged_with(base, tmp_path, WORDS)  # check_file holds that they are distinct and fall
    assert len(tokenizer.encode_inside(["中华人民共和国"])[0]) == 1


def test_a_base_that_leaves_no_scores_is_told(tmp_path):
    base = rescored(train(tmp_path / "base.model", ENGLISH), -3.4028234e38)
    with pytest.raises(TokenizerError, match="float32 has no .* numbers below it. Give the base's pieces scores"):
        merge(base, offered(*WORDS))
    base = train(tmp_path / "unigram.model", ENGLISH, model_type="unigram", vocab_size=600)
    model = ModelProto.FromString(base.content)
    for piece in model.pieces:
        piece.score = 0.0
    base.path.write_bytes(model.SerializeToString())
    with pytest.raises(TokenizerError, match="leaves no score below 0 for .* must be logarithms of probabilities"):
        merge(open_tokenizer(base.path), offered(*WORDS))


def test_an_order_by_score_is_its_own_order(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH, model_type="unigram", vocab_size=600)
    grower = grower_of(ModelProto.FromString(base.content))
    added, _ = grower.complete(WORDS)
    assert grower.order(added) == added


def test_a_base_with_padding_keeps_its_own(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH, pad_id=3)
    tokenizer, added = merged_with(base, tmp_path, WORDS)
    assert tokenizer.pad_id == base.pad_id == 3
    assert not [each for each in added if each.origin == PAD]


def test_pieces_learned_from_the_corpus_alone_bring_their_characters(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    tokenizer, added = merged_with(base, tmp_path, [], size=base.vocab_size + 150, corpus=CHINESE)
    assert {each.origin for each in added} == {FILLED, PAD}
    assert any(len(each.piece) > 2 for each in added)
    text = "".join(CHINESE[:50])
    assert len(tokenizer.encode(text)) < len(base.encode(text)) / 3


def test_what_the_usual_recipe_gives_fails_the_proof(tmp_path):
    """Pieces appended with score 0: unreachable ones, and ties."""
    base = train(tmp_path / "base.model", ENGLISH)
    model = ModelProto.FromString(base.content)
    for piece in [*dict.fromkeys("".join(WORDS)), *WORDS]:
        if piece not in ("越来", "大利亚"):
            model.pieces.add(piece=piece, score=0.0)
    path = tmp_path / "usual.model"
    path.write_bytes(model.SerializeToString())
    proof = Proof(base, open_tokenizer(path))
    proof.vocabulary()
    with pytest.raises(TokenizerError, match="'越来越' .* cannot be reached: its own text gives 越 来 越"):
        proof.finish()
    with pytest.raises(TokenizerError, match="scores of added pieces are not distinct"):
        check_file(base.content, path.read_bytes())


def test_english_that_is_cut_differently_fails_the_proof(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    model = ModelProto.FromString(base.content)
    model.pieces.add(piece="12", score=0.0)
    path = tmp_path / "changed.model"
    path.write_bytes(model.SerializeToString())
    proof = Proof(base, open_tokenizer(path))
    for line in cut(base, proof.merged, ["123 apples", "中文 123 中文"]):
        proof.line("lines", line)
    with pytest.raises(TokenizerError, match="'123 apples' has no Chinese and is cut differently(.|\n)*beside its Chinese"):
        proof.finish()


@pytest.mark.parametrize("field", ["normalizer_spec", "trainer_spec", "pieces"])
def test_a_changed_base_fails_the_proof(tmp_path, field):
    base = train(tmp_path / "base.model", ENGLISH)
    model = ModelProto.FromString(base.content)
    if field == "pieces":
        model.pieces[300].score -= 0.5
    elif field == "normalizer_spec":
        model.normalizer_spec.add_dummy_prefix = False
    else:
        model.trainer_spec.byte_fallback = False
    with pytest.raises(TokenizerError, match="fails its proof"):
        check_file(base.content, model.SerializeToString())


@pytest.mark.parametrize(("size", "multiple_of", "message"), [
    (10, 1, "leaves no room"), (1001, 64, "is no multiple of 64; 960 and 1024 are"),
    (200_000, 1, "the corpus fills .* places"),
])  # fmt: skip
def test_a_size_that_cannot_be_is_told(tmp_path, size, multiple_of, message):
    base = train(tmp_path / "base.model", ENGLISH)
    with pytest.raises(TokenizerError, match=message):
        merge(base, offered(*WORDS), size=size, corpus=CHINESE, multiple_of=multiple_of)


def test_a_least_count_that_nothing_reaches_is_told(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH)
    with pytest.raises(TokenizerError, match="fills 0 of 99 places .* occur 9000000 times; .* or a lower --min_count"):
        merge(base, offered(), size=base.vocab_size + 100, corpus=CHINESE, least=9_000_000)


def test_a_word_model_is_refused(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH, model_type="word", byte_fallback=False, vocab_size=100)
    with pytest.raises(TokenizerError, match="the base is a word model"):
        merge(base, offered(*WORDS))


def test_a_pad_that_is_no_padding_is_told(tmp_path):
    base = train(tmp_path / "base.model", ENGLISH, user_defined_symbols=["<pad>"])
    with pytest.raises(TokenizerError, match="--no_pad"):
        merge(base, offered(*WORDS))
    assert merge(base, offered(*WORDS), pad=False).added


def test_characters_are_told_apart():
    assert is_chinese("中，〇々ㄅ！")
    assert not any(map(has_chinese, ["“”‘’…—·", "かなカナｶﾅー", "한국어", "\u3000", "abc 123"]))
    assert len(HAN) > 20
