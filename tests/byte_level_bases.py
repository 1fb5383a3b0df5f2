"""Tiny byte-level tokenizers built as the well-known ones are."""

import json
from pathlib import Path

from conftest import make_texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
OTHERS = [
    "ひらがなとカタカナの文章です", "한국어 문장도 그대로", "🙂👍🏽🎉 “quoted” — … ·", "Съешь же ещё",
    "x = [1, 2.5e-3]  # {y}",
]  # fmt: skip
NAMES = ("gpt2", "prefixed", "llama3", "bloom", "qwen")


def split_by(pattern):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def make_base(name, folder, pieces_num=600):
    """Write the `tokenizer.json` of a base into `folder`, and give its path."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    first = []
    if name in ("gpt2", "prefixed"):
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        first = ["<|endoftext|>"]
    elif name == "bloom":
        tokenizer.pre_tokenizer = split_by(BLOOM)
        first = ["<unk>", "<s>", "</s>", "<pad>"]
    else:
        tokenizer.pre_tokenizer = split_by(LLAMA3)
    if name == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces_num, special_tokens=first, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([*make_texts(60, 7), *OTHERS * 3], trainer)
    if name == "prefixed":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if name in ("llama3", "qwen"):
        last = ["<|begin_of_text|>", "<|end_of_text|>"] if name == "llama3" else ["<|endoftext|>", "<|im_start|>"]
        tokenizer.add_special_tokens(last)
        tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    document = json.loads(tokenizer.to_str())
    if name == "llama3":
        document["model"]["ignore_merges"] = True
    if name == "bloom":
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return write_base(document, folder)


def write_base(document, folder):
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(folder) / "tokenizer.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path
