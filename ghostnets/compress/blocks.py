"""Blocks of a compressed network that match those of the original, and what passes through them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress.hooks import temporary_hooks

__all__ = ["find_blocks", "recorded"]


@contextmanager
def recorded(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, tuple[tuple[Tensor, ...], Tensor]]]:
    """Record inputs and output of modules, copied, as activations may work in place."""
    found: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    read: dict[str, tuple[Tensor, ...]] = {}

    def record_inputs(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read[name] = tuple(each.clone() for each in inputs)

    def record_output(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[name] = read[name], output.clone()

    handles = []
    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(partial(record_inputs, name)))
        handles.append(module.register_forward_hook(partial(record_output, name)))
    with temporary_hooks(handles):
        yield found


def find_blocks(model: nn.Module, original: nn.Module, x: Tensor) -> list[str]:
    """Find the innermost modules around changed layers that return one tensor of the same shape in both networks."""
    kept = {name: type(module) for name, module in original.named_modules()}
    before = {name: tensor.shape for name, tensor in original.state_dict().items()}
    changed = {name for name, tensor in model.state_dict().items() if before.get(name) != tensor.shape}
    layers = {name.rpartition(".")[0] for name in changed} | {
        name for name, module in model.named_modules() if name in kept and type(module) is not kept[name]
    }
    shapes = [_output_shapes(network, x) for network in (model, original)]
    common = {name for name, shape in shapes[0].items() if shape == shapes[1].get(name)}
    blocks = set()
    for layer in layers:
        parent = layer
        while parent := parent.rpartition(".")[0]:
            if parent in common:
                blocks.add(parent)
                break
    inside = {name for name in blocks if any(name.startswith(f"{other}.") for other in blocks)}
    return [name for name, _ in original.named_modules() if name in blocks - inside]


@torch.no_grad()
def _output_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[Any, ...]]:
    """Return shapes of inputs and output of each module that runs once, on positional tensors alone."""
    found: dict[str, list[tuple[Any, ...]]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            tensors = (*inputs, output)
            is_plain = len(inputs) > 0 and not named and all(isinstance(value, Tensor) for value in tensors)
            found.setdefault(name, []).append(tuple(value.shape for value in tensors) if is_plain else ())

        return record

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True) for name, module in model.named_modules() if name
    ]
    with temporary_hooks(handles):
        model(x)
    return {name: runs[0] for name, runs in found.items() if len(runs) == 1 and runs[0]}
