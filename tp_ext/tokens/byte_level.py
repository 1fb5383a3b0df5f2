"""Byte-level BPE tokenizers, as the tokenizers library reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tp_ext.errors import TokenizerError
from tp_ext.tokens import special_names
from tp_ext.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

NEEDED = "the tokenizer.json of a byte-level BPE tokenizer (BLOOM, Falcon, GPT-NeoX, LLaMA-3, Qwen) is needed"
USE_MODEL = "is a sentencepiece tokenizer converted to JSON; use its tokenizer.model"
MOST_GAPS = 1 << 16
"""Ids without a piece that are always taken: real tokenizers have some, for rows kept free."""

_SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _SHOWN]
ALPHABET = {byte: chr(byte) for byte in _SHOWN} | {byte: chr(256 + number) for number, byte in enumerate(_HIDDEN)}
"""How a byte is written inside a piece: GPT-2's alphabet, in which every byte is a visible character."""
_BYTES = {character: byte for byte, character in ALPHABET.items()}
_IN_UTF8 = [byte for byte in range(0xF5) if byte not in (0xC0, 0xC1)]


def piece_of(content: bytes) -> str:
    """The bytes as a piece of the vocabulary."""
    return "".join(map(ALPHABET.__getitem__, content))


def bytes_of(piece: str) -> bytes | None:
    """The bytes of a piece; None when it is not written in the alphabet, as some added tokens are not."""
    try:
        return bytes(map(_BYTES.__getitem__, piece))
    except KeyError:
        return None


def read_document(content: bytes, where: Path) -> dict[str, Any]:
    """The JSON object of a tokenizer file. Raises TokenizerError unless it is a byte-level BPE tokenizer's."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{where}: is not JSON ({error}); {NEEDED}") from None
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise TokenizerError(f"{where}: has no model with a vocabulary; {NEEDED}")
    problem = _problem(document, model)
    if problem:
        raise TokenizerError(f"{where}: {problem}")
    return dict(document)


def _problem(document: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    kind = model.get("type") or ("BPE" if "merges" in model else "a model of no type")
    steps = set(_types(document.get("pre_tokenizer")))
    if kind == "Unigram" or "Metaspace" in steps or model.get("byte_fallback"):
        return USE_MODEL
    if kind != "BPE":
        return f"is {kind}; {NEEDED}"
    if "ByteLevel" not in steps or "ByteLevel" not in _types(document.get("decoder")):
        return f"is BPE, but not over bytes (no ByteLevel among its pre-tokenizers and decoders); {NEEDED}"
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(setting):
            return f"has a {setting} ({model[setting]!r}); a byte-level tokenizer without one is needed"
    missing = [byte for byte in _IN_UTF8 if ALPHABET[byte] not in model["vocab"]]
    if missing:
        return f"has no piece for {len(missing)} bytes (the first is 0x{missing[0]:02X}), so that text would be lost"
    return None


def steps_of(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a pre-tokenizer or decoder, those of sequences one by one."""
    if isinstance(part, dict):
        nested = part.get("pretokenizers") or part.get("decoders")
        if isinstance(nested, list):
            for each in nested:
                yield from steps_of(each)
        else:
            yield part


def _types(part: Any) -> list[Any]:
    return [step.get("type") for step in steps_of(part)]


def open_library(document: Mapping[str, Any], where: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer of a JSON object, neither truncating nor padding. Raises TokenizerError."""
    try:
        import tokenizers
    except ImportError:
        raise TokenizerError(f"{where}: reading it needs the tokenizers package: pip install 'tp_ext[byte-level]'") from None
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps({**document, "truncation": None, "padding": None}))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{where}: the tokenizers library cannot read it ({error})") from None
    library.encode_special_tokens = True
    return library


def words_of(library: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[list[int]]]:
    """Ids of each text, pre-token by pre-token."""
    words = []
    for found in library.encode_batch(list(texts), add_special_tokens=False):
        numbered = groupby(zip(found.word_ids, found.ids, strict=True), lambda pair: pair[0])
        words.append([[index for _, index in word] for _, word in numbered])
    return words


def without_prefix_space(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same tokenizer putting no space before a text."""
    changed: dict[str, Any] = json.loads(json.dumps({"pre_tokenizer": document["pre_tokenizer"]}))
    for step in steps_of(changed["pre_tokenizer"]):
        if step.get("add_prefix_space"):
            step["add_prefix_space"] = False
    return {**document, **changed}


class ByteLevelTokenizer(Tokenizer):
    """A byte-level BPE `tokenizer.json`.

    Special pieces never come out of a text, not even where it spells one. They are what the files beside it name as
    bos, eos and pad, else the special pieces of the well-known names. One that is named both bos and eos (GPT-NeoX)
    is eos: it stands between two documents once.
    """

    file_name = "tokenizer.json"
    is_bpe = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        document = read_document(self.content, path)
        self._library = open_library(document, path)
        self._prefixes = any(step.get("add_prefix_space") for step in steps_of(document["pre_tokenizer"]))
        self._added = self._library.get_added_tokens_decoder()
        self._check_ids(document)
        self.vocab_size: int = max(self._library.get_vocab(with_added_tokens=True).values()) + 1
        self.beside = special_names.read(path.parent)
        self._named = special_names.names_in(self.beside, path.parent)
        self.eos_id = self._special("eos")
        self.pad_id = self._special("pad")
        bos = self._special("bos")
        self.bos_id = bos if bos != self.eos_id else None

    def _check_ids(self, document: Mapping[str, Any]) -> None:
        for token in document.get("added_tokens") or []:
            index = self._library.token_to_id(token["content"])
            if index != token["id"]:
                raise TokenizerError(
                    f"{self.path}: says that {token['content']!r} is {token['id']}, but to the tokenizers library it is "
                    f"{index}; the ids of added tokens must follow those of the vocabulary"
                )
        pieces: dict[int, str] = {}
        for piece, index in self._library.get_vocab(with_added_tokens=True).items():
            if pieces.setdefault(index, piece) != piece:
                raise TokenizerError(f"{self.path}: gives the id {index} to two pieces, {pieces[index]!r} and {piece!r}")
        largest = max(pieces)
        if (gaps := largest + 1 - len(pieces)) > max(len(pieces), MOST_GAPS):
            raise TokenizerError(
                f"{self.path}: the id of {pieces[largest]!r} is {largest:,}, so that {len(pieces):,} ids have a piece and "
                f"{gaps:,} have none; a model has a row for each: number them in turn"
            )

    def _special(self, role: str) -> int | None:
        named = self._named.get(f"{role}_token")
        if named is None:
            special = {token.content: index for index, token in self._added.items() if token.special}
            return next((special[name] for name in special_names.KNOWN[role] if name in special), None)
        index = self._library.token_to_id(named)
        if index is None:
            raise TokenizerError(f"{self.path}: has no piece {named!r}, which the files beside it name as {role}_token")
        return index

    @cached_property
    def inside(self) -> tokenizers.Tokenizer:
        """The library's tokenizer for text inside a longer one."""
        if not self._prefixes:
            return self._library
        return open_library(without_prefix_space(read_document(self.content, self.path)), self.path)

    def is_added(self, index: int) -> bool:
        """Whether the piece is one of the added tokens, which are found in a text before it is cut."""
        return index in self._added

    @property
    def begins_with_bos(self) -> bool:
        """Whether the file's own rule puts bos before a text."""
        return self._library.encode("a").ids[:1] == [self.bos_id]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without bos and eos."""
        return _encode(self._library, texts)

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text without a prefix space."""
        return _encode(self.inside, texts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids give nothing."""
        special = self.special_ids
        return self._library.decode([int(i) for i in ids if int(i) not in special])

    def piece(self, index: int) -> str:
        """The piece of an id, as it stands in the vocabulary; nothing for an id that no piece has."""
        if not 0 <= index < self.vocab_size:
            raise IndexError(f"{self.path}: no piece {index}; ids run from 0 to {self.vocab_size - 1}")
        return self._library.id_to_token(index) or ""

    def text(self, index: int) -> str | None:
        """The characters of a piece; None for special ids and for bytes that are no whole characters."""
        content = self.token_bytes(index)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError:
            return None

    def token_bytes(self, index: int) -> bytes | None:
        """The bytes of a piece; None for special ids."""
        if index in self.special_ids:
            return None
        piece = self.piece(index)
        content = None if index in self._added else bytes_of(piece)
        return piece.encode() if content is None else content

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of special added tokens, and ids that no piece has."""
        special = {index for index, token in self._added.items() if token.special}
        used = self._library.get_vocab(with_added_tokens=True).values()
        return frozenset(special | (set(range(self.vocab_size)) - set(used)))


def _encode(library: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [found.ids for found in library.encode_batch_fast(list(texts), add_special_tokens=False)]
