"""Train a sentencepiece tokenizer as LLaMA's was: BPE, byte fallback, digits apart, no normalisation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from tp_ext.errors import TokenizerError
from tp_ext.output import whole_file


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train on `texts`, a document each, and write the model to `path`.

    Settings are LLaMA's, so that everything that reads a LLaMA tokenizer reads this one: every space is kept, unknown
    characters become bytes, ids 0, 1, 2 are unk, bos, eos. Raises TokenizerError when the text is too small for the
    size.
    """
    with whole_file(path) as part, open(part, "wb") as writer:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(line for text in texts for line in text.split("\n") if line.strip()),
                model_writer=writer, vocab_size=vocab_size, model_type="bpe", byte_fallback=True, split_digits=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
                character_coverage=0.9995, max_sentence_length=16384, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
                num_threads=1, minloglevel=2,
            )  # fmt: skip
        except RuntimeError as error:
            reason = str(error).split("] ")[-1].strip() or "the text gives fewer pieces"
            raise TokenizerError(f"{path}: cannot train {vocab_size} pieces: {reason}") from None
