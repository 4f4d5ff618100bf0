"""Time and peak memory of a network, module by module, compared with the machine's limits."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ghostnets.measure.count import LayerCost, count, evaluation_mode
from ghostnets.measure.limits import MachineLimits

__all__ = ["ModuleProfile", "Profile", "profile"]


@dataclass(frozen=True)
class ModuleProfile:
    """Profile of one module, excluding its children; of one that runs several times, the sums over its runs.

    Attributes:
        name: Qualified module name; "" for the network itself.
        kind: ``"conv 1x1"``, ``"depthwise 3x3"``, ``"linear"``, or the class name. Operations that a module performs
            outside its children, such as the concatenation in a Ghost module, belong to the module itself.
        seconds: Median self time over the runs.
        macs: Multiply-adds of a convolution or linear layer for the whole batch; 0 for other modules.
        moved_bytes: Minimum memory traffic of a convolution or linear layer: weights, input and output. 0 for other
            modules.
        output_bytes: Size of the outputs.
        peak_bytes: Peak of live activation memory while the module ran: its input, its output, and tensors that later
            modules need.
        ideal_seconds: Lower bound at the machine's limits, compute or memory traffic, whichever is longer; None without
            limits and for modules without multiply-adds.
    """

    name: str
    kind: str
    seconds: float
    macs: int
    moved_bytes: int
    output_bytes: int
    peak_bytes: int
    ideal_seconds: float | None

    @property
    def share_of_limit(self) -> float | None:
        """``ideal_seconds / seconds``: 1 at the machine's limit."""
        return None if self.ideal_seconds is None or not self.seconds else self.ideal_seconds / self.seconds


@dataclass(frozen=True)
class Profile:
    """Profile of a network on one input in eager PyTorch.

    Attributes:
        modules: Modules that call an operator themselves, in definition order.
        seconds: Median time of a whole run, measured without hooks.
        peak_bytes: Peak of live activation memory, input included; excludes weights and scratch memory inside
            operators.
        input_shape: (N, C, H, W).
        precision: ``"f32"`` or ``"bf16"``.
    """

    modules: tuple[ModuleProfile, ...]
    seconds: float
    peak_bytes: int
    input_shape: tuple[int, ...]
    precision: str

    @property
    def ideal_seconds(self) -> float | None:
        """Sum over all modules; None without limits."""
        ideals = [m.ideal_seconds for m in self.modules if m.ideal_seconds is not None]
        return sum(ideals) if ideals else None

    def by_kind(self) -> dict[str, tuple[float, int, int]]:
        """Return kind -> (seconds, multiply-adds, number of modules), slowest first."""
        kinds: dict[str, tuple[float, int, int]] = {}
        for module in self.modules:
            seconds, macs, number = kinds.get(module.kind, (0.0, 0, 0))
            kinds[module.kind] = (seconds + module.seconds, macs + module.macs, number + 1)
        return dict(sorted(kinds.items(), key=lambda item: -item[1][0]))


def profile(model: nn.Module, x: Tensor, *, limits: MachineLimits | None = None, runs: int = 20) -> Profile:
    """Profile a network in evaluation mode: whole runs without hooks, then runs with a timer around every module.

    The timer adds about a microsecond per module, to the modules' times but not to the total.

    Args:
        model: Any module that takes one tensor; left unchanged.
        x: Input, in the dtype of the weights (float32 or bfloat16).
        limits: Result of ``measure_limits`` for torch's current number of threads.
        runs: Number of timed runs with and without the timer each.
    """
    with evaluation_mode(model):
        layers: dict[str, list[LayerCost]] = {}  # by name; several of a layer that runs several times
        for layer in count(model, tuple(x.shape[1:])).layers:
            layers.setdefault(layer.name, []).append(layer)
        memory = _MemoryTracker(model, x)
        with torch.inference_mode():
            total_seconds = _time_runs(model, x, runs)
            self_seconds = _time_modules(model, x, runs)

    precision = {torch.float32: "f32", torch.bfloat16: "bf16"}.get(x.dtype, str(x.dtype))
    footprint = memory.peak_bytes + sum(p.numel() * p.element_size() for p in model.parameters())
    rows = []
    for name, module in model.named_modules():
        if name not in memory.modules:
            continue
        usage = memory.modules[name]
        kind, macs, moved, ideal = type(module).__name__, 0, 0, None
        if name in layers:
            kind, macs = layers[name][0].kind, sum(layer.macs for layer in layers[name]) * x.shape[0]
            weights = sum(layer.params for layer in layers[name]) * x.element_size()
            maps = usage.input_bytes + usage.output_bytes
            moved = weights + maps
            if limits is not None and precision in limits.macs_per_second:
                # Each run streams the weights of all layers through the caches; a layer's input was just written.
                traffic = weights / limits.bandwidth(footprint) + maps / limits.bandwidth(maps)
                ideal = max(macs / limits.macs_per_second[precision], traffic)
        rows.append(
            ModuleProfile(name, kind, self_seconds[name], macs, moved, usage.output_bytes, usage.peak_bytes, ideal)
        )
    return Profile(tuple(rows), total_seconds, memory.peak_bytes, tuple(x.shape), precision)


@dataclass
class _MemoryUsage:
    """Memory of one module, observed while none of its children was running."""

    input_bytes: int = 0
    output_bytes: int = 0
    peak_bytes: int = 0


class _MemoryTracker(TorchDispatchMode):
    """Run a model once and record, at every operator, the calling module and the bytes of live activations.

    Attributes:
        modules: Name -> memory usage, for modules that call an operator themselves.
        peak_bytes: Peak of live activation memory.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules: dict[str, _MemoryUsage] = {}
        self.peak_bytes = 0
        self._running: list[str] = []
        self._weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._track(x)
        with torch.no_grad(), _hooked(model, self._begin, self._end), self:
            model(x)

    def _begin(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._running.append(name)

    def _end(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._running.pop()
        if name in self.modules:
            self.modules[name].input_bytes += sum(map(_bytes, inputs))
            self.modules[name].output_bytes += _bytes(output)

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._track(leaf)
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        alive = sum(size for _, size in self._alive.values())
        self.peak_bytes = max(self.peak_bytes, alive)
        usage = self.modules.setdefault(self._running[-1] if self._running else "", _MemoryUsage())
        usage.peak_bytes = max(usage.peak_bytes, alive)
        return result


def _bytes(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(value) if isinstance(t, Tensor))


def _time_runs(model: nn.Module, x: Tensor, runs: int) -> float:
    """Return the median time of a whole run."""
    times = []
    model(x)
    for _ in range(runs):
        start = time.perf_counter()
        model(x)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _time_modules(model: nn.Module, x: Tensor, runs: int) -> dict[str, float]:
    """Return module name -> median self time."""
    stack: list[list[float]] = []  # [start, accumulated time of the children] of each running module
    totals: dict[str, float] = {}

    def begin(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        stack.append([time.perf_counter(), 0.0])

    def end(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        start, children = stack.pop()
        elapsed = time.perf_counter() - start
        if stack:
            stack[-1][1] += elapsed
        totals[name] = totals.get(name, 0.0) + elapsed - children

    times: dict[str, list[float]] = {}
    with _hooked(model, begin, end):
        for index in range(runs + 1):
            totals.clear()
            model(x)
            if index:  # the first run warms up
                for name, seconds in totals.items():
                    times.setdefault(name, []).append(seconds)
    return {name: float(np.median(values)) for name, values in times.items()}


@contextmanager
def _hooked(model: nn.Module, begin: Callable[..., None], end: Callable[..., None]) -> Iterator[None]:
    """Call ``begin(name, module, inputs)`` and ``end(name, module, inputs, output)`` around every module's forward."""
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(partial(begin, name)))
            hooks.enter_context(module.register_forward_hook(partial(end, name)))
        yield
