"""Hosts whose documents are not wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tp_ext.errors import ConfigError

BLOCKED = "blocked host"


class Hosts:
    """A list of hosts, each for all hosts below it too; false without one."""

    def __init__(self, path: str | None) -> None:
        """A file with a host a line; # begins a comment. Raises ConfigError when it cannot be read."""
        self._hosts: frozenset[str] = frozenset()
        if path is not None:
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"documents.blocked_hosts: {path}: cannot be read ({error})") from None
            self._hosts = frozenset(host for line in lines if (host := line.split("#")[0].strip().lower().strip(".")))

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def block(self, url: Any) -> bool:
        """Whether a URL is on one of the hosts; not when it is none."""
        if not isinstance(url, str):
            return False
        try:
            host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        except ValueError:
            return False
        labels = host.strip(".").split(".")
        return any(".".join(labels[place:]) in self._hosts for place in range(len(labels)))
