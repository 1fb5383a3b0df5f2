"""What became of everything that was read, file by file and in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tp_ext.clean.tally import DROPPED, DUPLICATE, FAULT, KEPT, READ, Tally


def check_sum(tally: Tally, what: str) -> None:
    """That every record that was read is accounted for once."""
    out = tally.totals[KEPT] + sum(map(tally.sum_of, (DROPPED, DUPLICATE, FAULT)))
    assert tally.totals[READ] == out, f"{what}: {tally.totals[READ]} were read, {out} are accounted for"


def ledger_of(
    run: str, settings: dict[str, Any], versions: dict[str, str], total: Tally, files: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The ledger: `all` in all, each of `files`, and samples of each reason."""
    check_sum(total, "all files")
    return {"run": run, "settings": settings, "versions": versions, "all": total.as_json(), "files": list(files),
            "samples": total.samples}  # fmt: skip


def file_entry(source: dict[str, Any], output: str, tally: Tally) -> dict[str, Any]:
    """What the ledger says of one file: `source` says which it is, `output` where its documents are."""
    check_sum(tally, str(source["path"]))
    return {**source, "output": output, **tally.as_json()}


