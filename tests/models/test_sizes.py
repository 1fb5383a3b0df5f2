"""Every published size, built on the meta device, has the published number of parameters."""

import pytest
import torch

from tp_ext.models import build, config_of, families

PUBLISHED = {
    "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-33b": 32_528_943_616, "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616, "llama2-13b": 13_015_864_320, "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "bloom-560m": 559_214_592, "bloom-1b1": 1_065_314_304, "bloom-1b7": 1_722_408_960, "bloom-3b": 3_002_557_440,
    "bloom-7b1": 7_069_016_064, "bloom-176b": 176_247_271_424,
}  # fmt: skip


def test_all_sizes_are_listed_here():
    assert {size for family in families for size in family.sizes} == set(PUBLISHED)


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters(size):
    with torch.device("meta"):
        model = build(config_of(size))
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[size]
