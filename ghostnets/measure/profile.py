"""Where time and memory go, module by module, beside what the machine could do."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ghostnets.measure.count import count
from ghostnets.measure.limits import MachineLimits

__all__ = ["ModuleProfile", "Profile", "profile"]


@dataclass(frozen=True)
class ModuleProfile:
    """One module, without the modules inside it.

    Attributes:
        name: Within the network; "" for the network itself.
        kind: ``"conv 1x1"``, ``"depthwise 3x3"``, ``"linear"``, or the name of its class. What a module does outside
            of its children, such as the concatenation in a Ghost module, stands under the module's own name.
        seconds: Median over the runs, of its own work.
        macs: Multiply-adds of a convolution or linear layer, of all images of the batch; 0 for others.
        moved_bytes: Weights, input and output of a convolution or linear layer: what must be moved at the least. 0 for
            others.
        output_bytes: Of its output.
        peak_bytes: Most activation memory alive at one time while it ran: what it was given, what others still need,
            and what it made.
        ideal_seconds: What its arithmetic or its data would take at this machine's limits, whichever is longer; None
            where no limits are known, or for modules without multiply-adds.
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
        """``ideal_seconds`` / ``seconds``: 1 where the machine could not be faster."""
        return None if self.ideal_seconds is None or not self.seconds else self.ideal_seconds / self.seconds


@dataclass(frozen=True)
class Profile:
    """A network on one input, eager.

    Attributes:
        modules: Those that do something themselves, in the order of the network's definition.
        seconds: Median of a whole run, without the hooks that measured the modules.
        peak_bytes: Most activation memory alive at one time, the input included; no weights, and no scratch memory
            inside an operator.
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
        """The sum over all modules; None where no limits are known."""
        ideals = [m.ideal_seconds for m in self.modules if m.ideal_seconds is not None]
        return sum(ideals) if ideals else None

    def by_kind(self) -> dict[str, tuple[float, int, int]]:
        """Kind -> seconds, multiply-adds and number of its modules, the slowest first."""
        kinds: dict[str, tuple[float, int, int]] = {}
        for module in self.modules:
            seconds, macs, number = kinds.get(module.kind, (0.0, 0, 0))
            kinds[module.kind] = (seconds + module.seconds, macs + module.macs, number + 1)
        return dict(sorted(kinds.items(), key=lambda item: -item[1][0]))


def profile(model: nn.Module, x: Tensor, *, limits: MachineLimits | None = None, runs: int = 20) -> Profile:
    """Runs the network in evaluation mode, some times plain and some times with a clock at every module.

    The clock takes about a microsecond a module, which is in the figures of the modules, not in the total.

    Args:
        model: Any module that takes one tensor; it is left as it was.
        x: Its input, float32 or bfloat16 as the model's weights.
        limits: Of ``measure_limits``, with the number of threads that torch has now.
        runs: Of either kind.
    """
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        layers = {layer.name: layer for layer in count(model, tuple(x.shape[1:])).layers}
        memory = _Memory(model, x)
        with torch.inference_mode():
            whole = _seconds(model, x, runs)
            own = _own_seconds(model, x, runs)
    finally:
        for module, training in was_training.items():
            module.training = training

    precision = {torch.float32: "f32", torch.bfloat16: "bf16"}.get(x.dtype, str(x.dtype))
    footprint = memory.peak_bytes + sum(p.numel() * p.element_size() for p in model.parameters())
    rows = []
    for name, module in model.named_modules():
        if name not in memory.modules:
            continue
        scope = memory.modules[name]
        kind, macs, moved, ideal = type(module).__name__, 0, 0, None
        if name in layers:
            kind, macs = layers[name].kind, layers[name].macs * x.shape[0]
            weights = layers[name].params * x.element_size()
            maps = scope.input_bytes + scope.output_bytes
            moved = weights + maps
            if limits is not None and precision in limits.macs_per_second:
                # The weights of all layers pass through the caches in turn; a layer's maps were written just before.
                data = weights / limits.bandwidth(footprint) + maps / limits.bandwidth(maps)
                ideal = max(macs / limits.macs_per_second[precision], data)
        rows.append(ModuleProfile(name, kind, own[name], macs, moved, scope.output_bytes, scope.peak_bytes, ideal))
    return Profile(tuple(rows), whole, memory.peak_bytes, tuple(x.shape), precision)


@dataclass
class _Scope:
    """What was seen while a module, but none inside it, was running."""

    input_bytes: int = 0
    output_bytes: int = 0
    peak_bytes: int = 0


class _Memory(TorchDispatchMode):
    """One run that watches every operator: which module calls it, and how many bytes of activations are alive.

    Attributes:
        modules: Name -> what was seen, for modules that call an operator themselves.
        peak_bytes: The most that was alive.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules: dict[str, _Scope] = {}
        self.peak_bytes = 0
        self._running: list[str] = []
        self._weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._note(x)
        with torch.no_grad(), _hooked(model, self._begin, self._end), self:
            model(x)

    def _begin(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._running.append(name)

    def _end(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._running.pop()
        if name in self.modules:
            self.modules[name].input_bytes = sum(map(_bytes, inputs))
            self.modules[name].output_bytes = _bytes(output)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        alive = sum(size for _, size in self._alive.values())
        self.peak_bytes = max(self.peak_bytes, alive)
        scope = self.modules.setdefault(self._running[-1] if self._running else "", _Scope())
        scope.peak_bytes = max(scope.peak_bytes, alive)
        return result


def _bytes(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(value) if isinstance(t, Tensor))


def _seconds(model: nn.Module, x: Tensor, runs: int) -> float:
    """Median of a whole run."""
    times = []
    model(x)
    for _ in range(runs):
        start = time.perf_counter()
        model(x)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _own_seconds(model: nn.Module, x: Tensor, runs: int) -> dict[str, float]:
    """Median time of each module without the modules inside it."""
    stack: list[list[float]] = []  # start, and the time of the modules inside so far
    totals: dict[str, float] = {}

    def begin(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        stack.append([time.perf_counter(), 0.0])

    def end(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        start, inside = stack.pop()
        elapsed = time.perf_counter() - start
        if stack:
            stack[-1][1] += elapsed
        totals[name] = totals.get(name, 0.0) + elapsed - inside

    times: dict[str, list[float]] = {}
    with _hooked(model, begin, end):
        for index in range(runs + 1):
            totals.clear()
            model(x)
            if index:  # the first one warms up
                for name, seconds in totals.items():
                    times.setdefault(name, []).append(seconds)
    return {name: float(np.median(values)) for name, values in times.items()}


@contextmanager
def _hooked(model: nn.Module, begin: Callable[..., None], end: Callable[..., None]) -> Iterator[None]:
    """Calls ``begin(name, module, inputs)`` and ``end(name, module, inputs, output)`` around every module's forward."""
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(begin, name)))
        handles.append(module.register_forward_hook(partial(end, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
