"""Every row of every table, read both ways, for every family and feature."""

import pytest
import torch
from conftest import BLOOM, LLAMA, tiny

from tp_ext.checkpoint.names import expand
from tp_ext.models import build, families
from tp_ext.registry import family_of


@pytest.mark.parametrize(
    "config", [tiny(LLAMA), tiny(LLAMA, local_kv_heads_num=2), tiny(LLAMA, tie_weights=True), tiny(BLOOM)]
)
def test_rows_cover_each_weight_once_and_moves_undo_each_other(config):
    weights = dict(build(config).named_parameters())
    for table in family_of(families, config).tables.values():
        rows = list(expand(table, config))
        ours = [name for row in rows for name in row.ours]
        assert sorted(ours) == sorted(weights)
        assert len({row.theirs for row in rows}) == len(rows)
        for row in rows:
            numbers = [torch.rand_like(weights[name]) for name in row.ours]
            back = row.move.to_ours(row.move.to_theirs(numbers, config), config)
            assert all(torch.equal(one, other) for one, other in zip(numbers, back, strict=True))
