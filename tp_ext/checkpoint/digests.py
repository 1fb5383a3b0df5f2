"""A hash of every tensor of a stream, made as it passes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import xxhash

from tp_ext.checkpoint.source import Named, Source, whole
from tp_ext.checkpoint.tensors import TYPE_OF, Tensor, bytes_of

ALGORITHM = "xxh3_128"
"""Finds every accident, at twenty times the speed of SHA-256, which the manifest has of whole files."""


class Digests:
    """Hashes of tensors by name."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        self.exact = True
        """Whether no value was changed by the type it is kept in."""

    def add(self, name: str, tensor: Tensor) -> None:
        """Hash the bytes of a tensor."""
        self.hashes[name] = hash_of(tensor)


def hash_of(tensor: Tensor) -> str:
    """The hash of a tensor's values, row by row, in its own type; in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(bytes_of(tensor, TYPE_OF[tensor.dtype]))


def digest_of(hashes: Mapping[str, str]) -> str:
    """One SHA-256 of the hashes of all tensors."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def watched(source: Source, hashes: Digests) -> Source:
    """`source`, whose tensors are hashed as they are when they are read."""

    def read() -> Named:
        for name, tensor in source.read():
            hashes.add(name, tensor)
            yield name, tensor

    return replace(source, read=whole(read))
