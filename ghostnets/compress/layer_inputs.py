"""Inputs of layers for a set of images: the network runs on from layer to layer, not from the start each time."""

import copy
import operator
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.network_io import flatten_outputs, tensors_of
from ghostnets.compress.sites import can_fold

__all__ = ["LayerInputs"]

ADDITIONS = {operator.add, operator.iadd, torch.add}
HELD_BYTES = 512 << 20  # values kept for one network; batches beyond it are run from the images each time


class _Reached(Exception):  # noqa: N818
    """Raised to stop a forward pass at the layer of interest."""


class LayerInputs:
    """Inputs of a network's layers, for all images.

    Between two calls, each batch of images keeps the values that later layers read. So layers that are asked for in
    order of execution, as they are changed, cost one forward pass together. A layer that was already run is run again
    from the images.

    Args:
        model: Network in evaluation mode; its modules may be replaced between two calls.
        graph: Its graph, of ``sites.trace``; without it, each call runs the network from the images.
        batches: Images, (N, C, H, W) each.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph | None, batches: Sequence[Tensor]) -> None:
        self.model, self.batches = model, batches
        self.nodes = list(graph.nodes) if graph is not None else []
        self.index = {str(node.target): i for i, node in enumerate(self.nodes) if node.op == "call_module"}
        self.last_read = _find_last_reads(self.nodes)
        self.held: dict[int, tuple[int, dict[fx.Node, Any]]] = {}  # by batch: next node, values

    @torch.no_grad()
    def at(self, layer: str) -> Iterator[Tensor]:
        """Yield the input of a layer for each batch."""
        for number, batch in enumerate(self.batches):
            if layer in self.index:
                yield self._advance(number, batch, layer)[self._input(layer)]
            else:
                yield self._stop_at(layer, batch)

    @torch.no_grad()
    def with_shortcut(self, layer: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the input of a layer for each batch, and what its output is added to, as ``find_shortcut`` says."""
        _, shortcut = self.find_shortcut(layer)
        if shortcut is None:
            yield from ((x, None) for x in self.at(layer))
            return
        for number, batch in enumerate(self.batches):
            values = self._advance(number, batch, layer)
            yield values[self._input(layer)], values[shortcut]

    def find_shortcut(self, layer: str) -> tuple[str, fx.Node | None]:
        """Find the sum that the output of a layer alone enters, directly or through a batch normalisation.

        Returns:
            Name of the normalisation or ""; the other term of the sum, or None if there is none that is known before.
        """
        if layer not in self.index:
            return "", None
        node, norm = self.nodes[self.index[layer]], ""
        user = _only_user(node)
        if user is not None and user.op == "call_module":
            module = self.model.get_submodule(str(user.target))
            if not isinstance(module, nn.BatchNorm2d) or not can_fold(module) or hasattr(module, "act"):
                return "", None
            node, norm = user, str(user.target)
            user = _only_user(node)
        if user is None or user.target not in ADDITIONS or len(user.args) != 2 or user.kwargs:
            return "", None
        other = user.args[1] if user.args[0] is node else user.args[0]
        is_known = isinstance(other, fx.Node) and self.nodes.index(other) < self.index[layer]
        return (norm, other) if is_known else ("", None)  # type: ignore[return-value]

    def narrow(self, layer: str, kept: Tensor) -> None:
        """Drop channels of the input of a layer, after the layers before it were narrowed."""
        for position, values in self.held.values():
            if position == self.index.get(layer):
                values[self._input(layer)] = values[self._input(layer)].index_select(1, kept)

    @torch.no_grad()
    def outputs(self, layer: str) -> Tensor:
        """Return all outputs of the network, (N, ...), computed from the input of a layer on."""
        found = []
        for number, batch in enumerate(self.batches):
            if layer in self.index:
                before = self._advance(number, batch, layer)
                values = copy.deepcopy(list(before.values()))  # at once: views of one tensor stay such, in place too
                copied = dict(zip(before, values, strict=True))
                found.append(self._run(copied, self.index[layer], len(self.nodes), batch))
            else:
                found.append(self.model(batch))
        return torch.cat([flatten_outputs(outputs) for outputs in found])

    def _input(self, layer: str) -> fx.Node:
        node = self.nodes[self.index[layer]]
        first = next(iter((*node.args, *node.kwargs.values())))
        assert isinstance(first, fx.Node)
        return first

    def _advance(self, number: int, batch: Tensor, layer: str) -> dict[fx.Node, Any]:
        """Run a batch up to a layer, and return the values that it and later ones read."""
        stop = self.index[layer]
        start, values = self.held.pop(number, (0, {}))
        if start > stop:
            start, values = 0, {}
        self._run(values, start, stop, batch)
        if sum(_size(held) for _, held in self.held.values()) + _size(values) <= HELD_BYTES:
            self.held[number] = (stop, values)
        return values

    def _run(self, values: dict[fx.Node, Any], start: int, stop: int, batch: Tensor) -> Any:
        """Run the nodes of a range; return the value of the last."""
        value = None
        for node in self.nodes[start:stop]:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda read: values[read])
            if node.op == "placeholder":
                value = batch if not values else (args[0] if args else None)
            elif node.op == "get_attr":
                constant = node.meta.get("constant")
                value = _attribute(self.model, str(node.target)) if constant is None else constant.clone()
            elif node.op == "call_module":
                value = self.model.get_submodule(str(node.target))(*args, **kwargs)
            elif node.op == "call_method":
                value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            elif node.op == "call_function":
                value = node.target(*args, **kwargs)
            else:
                return args[0]
            values[node] = value
            for read in self.last_read[node]:
                values.pop(read, None)
        return value

    def _stop_at(self, layer: str, batch: Tensor) -> Tensor:
        found: list[Tensor] = []

        def stop(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(inputs[0])
            raise _Reached

        handle = self.model.get_submodule(layer).register_forward_pre_hook(stop)
        with temporary_hooks([handle]), suppress(_Reached):
            self.model(batch)
        return found[0]


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _find_last_reads(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Return for each node the values that no later node reads."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last |= dict.fromkeys((node, *node.all_input_nodes), node)
    found: dict[fx.Node, list[fx.Node]] = {node: [] for node in nodes}
    for read, node in last.items():
        found[node].append(read)
    return found


def _attribute(model: nn.Module, name: str) -> Any:
    parent, _, child = name.rpartition(".")
    return getattr(model.get_submodule(parent), child)


def _size(values: dict[fx.Node, Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for value in values.values() for tensor in tensors_of(value))
