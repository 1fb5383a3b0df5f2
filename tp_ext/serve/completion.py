"""The completions of OpenAI's API: what a request may say, and what the answers look like.

Format: https://platform.openai.com/docs/api-reference/completions; what is not supported is refused, not ignored.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tp_ext.errors import ConfigError, raise_all
from tp_ext.infer import LanguageModel
from tp_ext.settings import build

_INERT = {"n": 1, "best_of": 1, "echo": False, "logprobs": None, "frequency_penalty": 0, "presence_penalty": 0,
          "logit_bias": None, "suffix": None}  # fmt: skip
"""Settings that are accepted at the value at which they do nothing."""
_IGNORED = ("user", "stream_options", "metadata", "store")
MOST_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """The settings whose type is plain."""

    model: str
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stream: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked(_Plain):
    """A request for a completion."""

    prompt: str | list[int]
    stop: str | list[str] | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end the completion."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


def read_request(values: Mapping[str, Any]) -> Asked:
    """The request in a JSON object. Raises ConfigError listing every problem."""
    wanted = {name: value for name, value in values.items() if name not in _INERT and name not in _IGNORED}
    problems = [
        f"request.{name}: {values[name]!r} is not supported; leave it out" for name, nothing in _INERT.items()
        if values.get(name, nothing) not in (nothing, None)
    ]  # fmt: skip
    prompt, stop = wanted.pop("prompt", None), wanted.pop("stop", None)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    is_ids = isinstance(prompt, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in prompt)
    if not isinstance(prompt, str) and not (prompt and is_ids):
        problems.append("request.prompt: expected one text, or one list of ids")
    if not (stop is None or isinstance(stop, str) or (isinstance(stop, list) and all(isinstance(s, str) for s in stop))):
        problems.append("request.stop: expected a text or a list of texts")
    wanted = {name: value for name, value in wanted.items() if value is not None}
    asked = build(_Plain, wanted, "request", problems)
    if asked is not None and not 1 <= asked.max_tokens <= MOST_TOKENS:
        problems.append(f"request.max_tokens: {asked.max_tokens} is not from 1 to {MOST_TOKENS}")
    raise_all(ConfigError, problems)
    assert asked is not None and prompt is not None
    return Asked(prompt=prompt, stop=stop, **vars(asked))


@dataclass
class Completion:
    """The answer to a request, chunk by chunk or whole."""

    asked: Asked
    model: LanguageModel
    tokens: int = 0
    reason: str = "length"

    def __post_init__(self) -> None:
        self._head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
                      "model": self.asked.model}  # fmt: skip
        asked = self.asked
        self._pieces = self.model.stream(asked.prompt, asked.max_tokens, asked.temperature, asked.top_p, asked.top_k,
                                         asked.repetition_penalty, asked.seed)  # fmt: skip

    def texts(self) -> Iterator[str]:
        """What is added, up to the first text of `stop`; what may be the beginning of one is held back."""
        told = text = ""
        for piece in self._pieces:
            self.tokens += 1
            text += piece
            place = min((found for stop in self.asked.stops if (found := text.find(stop)) >= 0), default=None)
            if place is not None:
                self.reason = "stop"
                yield text[len(told) : place]
                return
            kept = max((size for stop in self.asked.stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
                       default=0)  # fmt: skip
            yield text[len(told) : len(text) - kept]
            told = text[: len(text) - kept]
        if self.tokens < self.asked.max_tokens:
            self.reason = "stop"
        yield text[len(told) :]

    def chunks(self) -> Iterator[dict[str, Any]]:
        """The answer to a streaming request."""
        for text in self.texts():
            if text:
                yield {**self._head, "choices": [_choice(text, None)]}
        yield {**self._head, "choices": [_choice("", self.reason)], "usage": self._usage()}

    def whole(self) -> dict[str, Any]:
        """The answer at once."""
        text = "".join(self.texts())
        return {**self._head, "choices": [_choice(text, self.reason)], "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        prompt = self.asked.prompt
        begin = len(self.model.tokenizer.encode(prompt)) + 1 if isinstance(prompt, str) else len(prompt)
        return {"prompt_tokens": begin, "completion_tokens": self.tokens, "total_tokens": begin + self.tokens}


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
