"""The other forms of a merged vocabulary, read by the programs they are for."""

import json
import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from test_merge import CHINESE, ENGLISH, WORDS, merged_with, train

from tp_ext.errors import TokenizerError
from tp_ext.tokens import battery
from tp_ext.tokens.expressible import tied_runs, why_not_llama_cpp, why_not_tokenizers
from tp_ext.tokens.fast import write_fast
from tp_ext.tokens.gguf_vocabulary import add_vocabulary, write_gguf_vocabulary
from tp_ext.tokens.tokenizer import open_tokenizer

LINES = [*(line for text in battery.TEXTS.values() for line in text.splitlines()), "", " ", "   a", *CHINESE[:100]]
SYMBOLS = ["<tool>", "〔", "<tool>x", "a.b", "(?i)the", "\\d"]
SHAPES = {
    "": {}, "without prefix": {"add_dummy_prefix": False}, "without bytes": {"byte_fallback": False},
    "with symbols": {"user_defined_symbols": SYMBOLS},
    "with symbols, without prefix": {"user_defined_symbols": SYMBOLS, "add_dummy_prefix": False},
}  # fmt: skip
LINES += [*SYMBOLS, " ".join(SYMBOLS), "a <tool>人民法院<tool>x", "〔〕 〔a.b", "<tool><0x0A>", "〔<s>", "〔<0x41>a.b"]


OF_LLAMA_CPP = ["", "without prefix", "with symbols, without prefix"]


@pytest.fixture(scope="module", params=SHAPES)
def merged(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged")
    base = train(folder / "base.model", ENGLISH + battery.OTHERS.splitlines(), **SHAPES[request.param])
    return merged_with(base, folder, WORDS, size=base.vocab_size + 200, corpus=CHINESE)[0]


def test_tokenizers_gives_the_ids_of_sentencepiece(merged, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    write_fast(merged, tmp_path)
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    fast.encode_special_tokens = True  # sentencepiece knows none inside a text
    found = [each.ids for each in fast.encode_batch(LINES, add_special_tokens=False)]
    assert found == merged.encode_batch(LINES)


def test_transformers_reads_the_folder_and_the_texts_come_back(merged, tmp_path):
    from transformers import AutoTokenizer

    write_fast(merged, tmp_path)
    (tmp_path / merged.file_name).write_bytes(merged.content)
    found = AutoTokenizer.from_pretrained(str(tmp_path))
    assert found("人民法院").input_ids == [merged.bos_id, *merged.encode("人民法院")]
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (merged.bos_id, merged.eos_id, merged.pad_id)
    known = [line for line in LINES if merged.special_ids.isdisjoint(merged.encode(line))]
    lines = [line for line in known if "<s>" not in line and "▁" not in line]
    assert found(lines, add_special_tokens=False).input_ids == merged.encode_batch(lines)
    assert [found.decode(merged.encode(line)) for line in lines] == [merged.decode(merged.encode(line)) for line in lines]


@pytest.mark.parametrize(("changes", "reason"), [
    ({"model_type": "unigram", "vocab_size": 400}, "is not a BPE model"),
    ({"normalization_rule_name": "nmt_nfkc"}, "changes the text before it cuts it"),
    ({"remove_extra_whitespaces": True}, "changes the text before it cuts it"),
    ({"treat_whitespace_as_suffix": True}, "puts spaces behind words"),
])  # fmt: skip
def test_a_model_the_formats_cannot_express_is_told(tmp_path, changes, reason):
    base = train(tmp_path / "base.model", ENGLISH, **changes)
    with pytest.raises(TokenizerError, match=reason):
        write_fast(base, tmp_path)
    pytest.importorskip("gguf")
    with pytest.raises(TokenizerError, match=reason):
        write_gguf_vocabulary(base, tmp_path / "vocabulary.gguf")
    assert not (tmp_path / "tokenizer.json").exists()


def changed(path, change, **settings):
    """A trained model with some of its fields changed."""
    model = ModelProto.FromString(train(path, ENGLISH, **settings).content)
    change(model, {piece.piece: piece for piece in model.pieces})
    path.write_bytes(model.SerializeToString())
    return open_tokenizer(path)


def tie(model, pieces):
    pieces["th"].score = pieces["in"].score


def tie_runs(model, pieces):
    for length in (2, 3, 4, 8):
        model.pieces.add(piece="e" * length, score=-1e9)


def test_pieces_of_equal_score_are_refused_unless_they_are_runs_of_one_character(tmp_path):
    found = changed(tmp_path / "a.model", tie)
    assert re.search("equal score .2, such as .* sentencepiece joins the leftmost first", why_not_tokenizers(found))
    assert why_not_llama_cpp(found) is None
    found = changed(tmp_path / "b.model", tie_runs)
    assert why_not_tokenizers(found) is None
    assert tied_runs(ModelProto.FromString(found.content)) == {"e": 8}


def unused(model, pieces):
    pieces["th"].type = ModelProto.SentencePiece.UNUSED


def no_number(model, pieces):
    pieces["th"].score = float("nan")


def of_no_characters(model, pieces):
    model.pieces.add(piece="e龘", score=-1e4)


def unreachable(model, pieces):
    model.pieces.add(piece="tsaose", score=-1e4)


@pytest.mark.parametrize(("change", "settings", "reason"), [
    (unused, {}, "has unused pieces .1, such as 'th'"),
    (no_number, {}, "scores that are no numbers .1, such as that of 'th'"),
    (of_no_characters, {}, "'e龘', of characters that are no pieces"),
    (unreachable, {"user_defined_symbols": ["<tool>"]}, "user-defined pieces beside 1 that no text gives, such as 'tsaose'"),
])  # fmt: skip
def test_what_is_refused_from_the_file_alone_would_differ(tmp_path, change, settings, reason):
    found = changed(tmp_path / "a.model", change, **settings)
    assert re.search(reason, why_not_tokenizers(found))
    with pytest.raises(TokenizerError, match=reason):
        write_fast(found, tmp_path)


@pytest.mark.parametrize(("settings", "reason"), [
    ({"user_defined_symbols": ["<tool>"]}, "user-defined pieces, behind each of which"),
    ({"byte_fallback": False}, "has no pieces for bytes"),
])  # fmt: skip
def test_what_llama_cpp_alone_cannot_express_is_told(tmp_path, settings, reason):
    found = train(tmp_path / "a.model", ENGLISH, **settings)
    assert why_not_tokenizers(found) is None
    assert re.search(reason, why_not_llama_cpp(found))


@pytest.mark.parametrize("merged", OF_LLAMA_CPP, indirect=True)
def test_a_gguf_vocabulary_holds_pieces_scores_and_types(merged, tmp_path):
    gguf = pytest.importorskip("gguf")
    write_gguf_vocabulary(merged, tmp_path / "vocabulary.gguf")
    fields = gguf.GGUFReader(tmp_path / "vocabulary.gguf").fields
    pieces = [merged.piece(index) for index in range(merged.vocab_size)]
    assert fields["tokenizer.ggml.tokens"].contents() == pieces
    assert fields["tokenizer.ggml.token_type"].contents()[:4] == [2, 3, 3, fields["tokenizer.ggml.token_type"].contents()[3]]
    assert fields["tokenizer.ggml.padding_token_id"].contents() == merged.pad_id
    assert len(set(fields["tokenizer.ggml.scores"].contents()[-100:-1])) == 99


def write_model(tokenizer, path: Path) -> None:
    """A LLaMA of one layer with this vocabulary, so that llama.cpp has something to load."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    size = 32
    writer.add_context_length(4096)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(size)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    add_vocabulary(writer, tokenizer)
    shapes = {"token_embd": (tokenizer.vocab_size, size), "output_norm": (size,), "blk.0.attn_norm": (size,),
              "blk.0.ffn_norm": (size,)}  # fmt: skip
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for name, shape in {**shapes, **{f"blk.0.{name}": (size, size) for name in names}}.items():
        writer.add_tensor(f"{name}.weight", np.full(shape, 0.01, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids_of_llama_cpp(model: Path, lines):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.port, params.cpuparams.n_threads = 128, 1, 0, 1
    server = xllamacpp.Server(params)
    ids = []
    for line in lines:
        asked = json.dumps({"content": line, "add_special": False, "parse_special": False}).encode()
        request = urllib.request.Request(f"{server.listening_address}/tokenize", asked, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            ids.append(json.load(answer)["tokens"])
    return ids


@pytest.mark.parametrize("merged", OF_LLAMA_CPP, indirect=True)
def test_llama_cpp_gives_the_ids_of_sentencepiece(merged, tmp_path):
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    write_model(merged, tmp_path / "model.gguf")
    assert ids_of_llama_cpp(tmp_path / "model.gguf", LINES) == merged.encode_batch(LINES)
