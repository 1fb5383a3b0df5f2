"""A model ready to use: logits of ids, and text that goes on from a prompt."""

# B prompts, T tokens, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.formats import open_model
from tp_ext.errors import ConfigError
from tp_ext.models import build, families
from tp_ext.models.decoder import Decoder
from tp_ext.nn.attention import LayerCache
from tp_ext.tokens.rows import check_rows
from tp_ext.tokens.tokenizer import FILE_NAMES, Tokenizer, find_tokenizer, open_tokenizer


class LanguageModel:
    """A decoder with its tokenizer; made by `load`."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer | None) -> None:
        self.model = model.eval()
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights. Raises ConfigError when there was none."""
        if self._tokenizer is None:
            raise ConfigError(f"the model folder has no {' or '.join(FILE_NAMES)}; copy the model's own tokenizer there")
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits [B, T, V], float32, of int64 `ids` [B, T].

        `attention_mask` [B, T] is 1 for tokens and 0 for padding, left or right. Raises ConfigError on ids that are no
        row of the embedding.
        """
        rows = self.model.config.pieces
        if ids.dim() != 2 or ids.shape != (attention_mask if attention_mask is not None else ids).shape:
            raise ConfigError(f"ids and attention_mask are [batch, tokens] alike; found ids {list(ids.shape)}")
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= rows):
            raise ConfigError(f"ids run from {int(ids.min())} to {int(ids.max())}; the model has rows 0 to {rows - 1}")
        keep = None if attention_mask is None else attention_mask.to(self.device).bool()
        if keep is not None and bool(keep.all()):
            keep = None
        logits: Tensor = self.model(ids.to(self.device), keep=keep)
        return logits.float()

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        use_cache: bool = True,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[str]:
        """What the model adds to each prompt, up to its end-of-text or `max_new_tokens`.

        `temperature` 0 takes the likeliest token; above it one is drawn from the `top_k` likeliest (0: all) that together
        reach the probability `top_p`. `repetition_penalty` above 1 makes tokens that stand in the text already less
        likely (Keskar et al. 2019, arXiv 1909.05858). Raises ConfigError on settings that cannot be.
        """
        _check(prompts, max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
        before = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        encoded = [before + self.tokenizer.encode(prompt) for prompt in prompts]
        if not all(encoded):
            raise ConfigError("an empty prompt needs a tokenizer with a bos piece")
        ids, keep = _pad_left(encoded)
        self._check_length(ids.shape[1] + max_new_tokens)
        added: list[list[int]] = [[] for _ in encoded]
        steps = self._steps(ids, keep, max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed, use_cache)
        for number, step in enumerate(steps):
            for new, token in zip(added, step, strict=True):
                new.extend([] if token is None else [token])
            progress(number + 1, max_new_tokens)
        texts = []
        for prompt, new in zip(encoded, added, strict=True):
            whole, known = self.tokenizer.decode(prompt + new), self.tokenizer.decode(prompt)
            texts.append(whole[len(known) :])
        return texts

    def stream(
        self, prompt: str | Sequence[int], max_new_tokens: int = 64, temperature: float = 0.0, top_p: float = 1.0,
        top_k: int = 0, repetition_penalty: float = 1.0, seed: int = 0,
    ) -> Iterator[str]:  # fmt: skip
        """As `generate`, for one prompt: what the model adds, token by token; nothing where a character is incomplete.

        A prompt of ids is taken as it is. All of it together is what `generate` gives.
        """
        texts = [prompt] if isinstance(prompt, str) else []
        _check(texts or [""], max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
        before = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        begin = before + self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not begin or min(begin) < 0 or max(begin) >= self.model.config.pieces:
            raise ConfigError(f"a prompt is at least one id, from 0 to {self.model.config.pieces - 1}")
        ids, keep = _pad_left([begin])
        self._check_length(len(begin) + max_new_tokens)
        return self._told(begin, self._steps(ids, keep, max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed,
                                             use_cache=True))  # fmt: skip

    def _told(self, begin: list[int], steps: Iterator[list[int | None]]) -> Iterator[str]:
        """The text that each step adds behind `begin`; told one step later, as the last tells all that is left."""
        known, told, ids = len(self.tokenizer.decode(begin)), 0, list(begin)
        text, waiting = "", None
        for (token,) in steps:
            if token is None:
                break
            if waiting is not None:
                yield waiting
            ids.append(token)
            text = self.tokenizer.decode(ids)[known:]
            whole = told if text.endswith(_INCOMPLETE) else len(text)
            waiting, told = text[told:whole], whole
        if waiting is not None:
            yield waiting + text[told:]

    def _check_length(self, length: int) -> None:
        config = self.model.config
        if config.rotary_position_embedding and length > config.max_seq_length:
            raise ConfigError(
                f"prompt and new tokens are {length}; the model was made for {config.max_seq_length}; ask for fewer"
            )

    def _never_chosen(self) -> Tensor:
        """Whether a row [V] stands for no text: special ids but the end of text, and rows that fill the table up."""
        never = torch.zeros(self.model.config.rows, dtype=torch.bool, device=self.device)
        never[sorted(self.tokenizer.special_ids - {self.tokenizer.eos_id})] = True
        never[self.tokenizer.vocab_size :] = True
        return never

    @torch.no_grad()
    def _steps(
        self, ids: Tensor, keep: Tensor, count: int, temperature: float, top_p: float, top_k: int, penalty: float,
        seed: int, use_cache: bool,
    ) -> Iterator[list[int | None]]:  # fmt: skip
        """Step by step the id added to each row of `ids` [B, T], whose padding is where `keep` is False.

        None from the end of a row's text on; it ends when all rows have.
        """
        ids, keep = ids.to(self.device), keep.to(self.device)
        generator = torch.Generator(self.device).manual_seed(seed)
        room = ids.shape[1] + count
        caches = [LayerCache(room) for _ in self.model.encoder.transformer] if use_cache else None
        running = [True] * len(ids)
        unseen = ids
        never = self._never_chosen()
        for _ in range(count):
            logits = self.model(unseen, keep=None if bool(keep.all()) else keep, caches=caches)[:, -1].float()
            logits[:, never] = float("-inf")
            _penalize(logits, ids, keep, penalty)
            chosen = _choose(logits, temperature, top_p, top_k, generator)
            tokens = chosen.tolist()
            running = [on and token != self.tokenizer.eos_id for on, token in zip(running, tokens, strict=True)]
            yield [token if on else None for on, token in zip(running, tokens, strict=True)]
            if not any(running):
                break
            ids = torch.cat([ids, chosen[:, None]], 1)
            keep = torch.cat([keep, torch.ones_like(keep[:, :1])], 1)
            unseen = chosen[:, None] if caches else ids


_INCOMPLETE = "\ufffd"
"""What a character is decoded to while some of its bytes are missing."""


def _check(
    prompts: Sequence[str], max_new_tokens: int, temperature: float, top_p: float, top_k: int, penalty: float, seed: int
) -> None:
    if isinstance(prompts, str) or not prompts:
        raise ConfigError("prompts is a list of at least one text")
    for name, value, right in [
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1),
        ("temperature", temperature, temperature == 0 or 1e-3 <= temperature <= 1e3),
        ("top_p", top_p, 0 < top_p <= 1), ("top_k", top_k, top_k >= 0),
        ("repetition_penalty", penalty, 1e-3 <= penalty <= 1e3),
        ("seed", seed, 0 <= seed < 1 << 63),
    ]:  # fmt: skip
        if not right:
            raise ConfigError(f"{name} is {value}; it must be {_RANGES[name]}")
    for prompt in prompts:
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError(f"the prompt {prompt!r} is not UTF-8") from None


_RANGES = {
    "max_new_tokens": "at least 1", "temperature": "0, or from 0.001 to 1000", "top_p": "above 0 and at most 1",
    "top_k": "at least 0", "repetition_penalty": "from 0.001 to 1000", "seed": "from 0 to 2^63 - 1",
}  # fmt: skip


def _pad_left(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Rows filled up on the left to one length, and where they are not filling."""
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    keep = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows])
    return ids, keep


def _penalize(logits: Tensor, ids: Tensor, keep: Tensor, penalty: float) -> None:
    """Divide the logits of tokens that stand in the text, or multiply where they are negative."""
    if penalty == 1.0:
        return
    for row, (text, real) in enumerate(zip(ids, keep, strict=True)):
        seen = text[real].unique()
        scores = logits[row, seen]
        logits[row, seen] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _choose(logits: Tensor, temperature: float, top_p: float, top_k: int, generator: torch.Generator) -> Tensor:
    """One token [B] for each row of `logits` [B, V]."""
    if temperature == 0:
        return logits.argmax(-1)
    probability, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    if top_k:
        probability[:, top_k:] = 0
    if top_p < 1:
        # a token stays while those before it have not reached top_p
        probability[probability.cumsum(-1) - probability >= top_p] = 0
    place = torch.multinomial(probability, 1, generator=generator)
    return order.gather(1, place)[:, 0]


def load(
    path: str | Path, dtype: str | None = None, device: str | None = None, config_path: Path | None = None
) -> LanguageModel:
    """The model in a folder of ours, a Hugging Face folder, or TencentPretrain's .bin, with its tokenizer.

    `dtype` (fp32, bf16, fp16) is by default that of the file; `device` by default the GPU where there is one. Raises
    CheckpointError on weights that are not exactly the configuration's, or rows that do not match the tokenizer.
    """
    source = open_model(Path(path), families, config_path)
    beside = find_tokenizer(source.folder)
    tokenizer = open_tokenizer(beside) if beside else None
    if tokenizer:
        check_rows(source.config, tokenizer)
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    kind = DTYPES[dtype] if dtype else source.dtype
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.device("meta"):
        model = build(source.config)
    model = model.to(kind).to_empty(device=place)
    model.tie()
    with torch.no_grad():
        for (name, parameter), (found, tensor) in zip(model.named_parameters(), source.read(), strict=True):
            assert name == found, (name, found)
            parameter.copy_(tensor)
    return LanguageModel(model, tokenizer)
