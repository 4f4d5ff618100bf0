"""Activation checkpointing: blocks keep only their input, and run again in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]
from torch.utils.checkpoint import checkpoint

from ghostnets.layers.dispatch import override_forward

__all__ = ["is_scripting", "run_with_recomputation"]


def run_with_recomputation(module: nn.Module, x: Tensor) -> Tensor:
    """Run a stage, block by block; blocks with parameters store their input and are run again in the backward pass.

    Gradients, running statistics and random numbers are those of an ordinary run: a block that runs again does not
    update its running statistics again. Blocks run as written, since the backward pass may be outside of the context of
    a faster implementation.
    """
    for block in module if isinstance(module, nn.Sequential) else [module]:
        if not any(True for _ in block.children()):  # a single layer saves nothing, and may work in place
            x = block(x)
        elif torch.compiler.is_compiling():  # the compiler recomputes without side effects
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))
    return x


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return override_forward({}), _recomputation(block)


@contextmanager
def _recomputation(block: nn.Module) -> Iterator[None]:
    """Run a block again: as written, and without a change of its running statistics.

    No tensor that the backward pass has saved is written to.
    """
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        with override_forward({}):
            yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
