"""Every instruction set of the fused kernels, and several threads."""

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    native = import_module("ghostnets.layers._training")
    best = native.instruction_set()
    if not native.choose_instruction_set(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.choose_instruction_set(best)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
