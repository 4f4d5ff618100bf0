"""The graph of a traced network: steps, and the proxies that record them.

A proxy knows the number of channels and records each torch function called on it (``__torch_function__``) as a step.
Height, width and batch size are symbolic, so one graph serves images of any size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from ghostnets.errors import EngineError

__all__ = ["Recorder", "Step", "SymbolicSize", "TensorProxy", "as_constant", "raise_unsupported_step"]


@dataclass(eq=False)
class Step:
    """One operation on feature maps (N, C, H, W).

    Attributes:
        op: ``"images"``, ``"conv"``, ``"affine"``, ``"act"``, ``"add"``, ``"multiply"``, ``"arrange"``, ``"max_pool"``,
            ``"average_pool"``, ``"adaptive_pool"``, ``"resize"`` or ``"pad"``; the passes add ``"ghost"`` and
            ``"squeeze_excite"``.
        path: Qualified name of the module that computes the step.
        inputs: Steps whose outputs are read.
        channels: Number of output channels, C.
        fields: Weights and options, by name.
        size: Output height and width, if they do not depend on the images.
    """

    op: str
    path: str
    inputs: list["Step"]
    channels: int
    fields: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None


class SymbolicSize:
    """A size that is unknown while tracing: that of the batch, or the height or width of a feature map."""

    def __init__(self, recorder: "Recorder", step: Step, axis: int) -> None:
        self.recorder, self.step, self.axis = recorder, step, axis

    def _is_larger_than(self, other: Any) -> bool:
        """Assume that the size is larger than a small constant; the kernels handle maps of one pixel."""
        if not isinstance(other, int) or other > 2:
            raise_unsupported_step(self.recorder.path, f"compares the size of a map with {other}")
        return True

    def __gt__(self, other: Any) -> bool:
        return self._is_larger_than(other)

    def __ge__(self, other: Any) -> bool:
        return self._is_larger_than(other)

    def __lt__(self, other: Any) -> bool:
        return not self._is_larger_than(other)

    def __le__(self, other: Any) -> bool:
        return not self._is_larger_than(other)

    def __getattr__(self, name: str) -> NoReturn:
        raise_unsupported_step(self.recorder.path, f"computes with the size of a map ({name})")

    def _reject(self, *_: Any) -> NoReturn:
        raise_unsupported_step(self.recorder.path, "computes with the size of a map")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __floordiv__ = __mod__ = _reject
    __int__ = __index__ = __float__ = __neg__ = _reject


class TensorProxy:
    """Proxy for a tensor: the output of a step, or a view of it.

    Args:
        recorder: Recorder of the graph.
        step: Step whose output this is.
        form: ``"map"`` (N, C, H, W); ``"vector"`` (N, C * H * W); ``"groups"`` (N, g, C / g, H, W); ``"shuffled"``
            (N, C / g, g, H, W).
        groups: Number of groups g, for ``"groups"`` and ``"shuffled"``.
    """

    def __init__(self, recorder: "Recorder", step: Step, form: str = "map", groups: int = 1) -> None:
        self.recorder, self.step, self.form, self.groups = recorder, step, form, groups

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape, with ``SymbolicSize`` for sizes that depend on the images."""
        step = self.step
        batch = SymbolicSize(self.recorder, step, 0)
        height, width = step.size or (SymbolicSize(self.recorder, step, 2), SymbolicSize(self.recorder, step, 3))
        if self.form == "vector":
            return (batch, step.channels * (step.size[0] * step.size[1] if step.size else 1))
        if self.form == "map":
            return (batch, step.channels, height, width)
        parts = (self.groups, step.channels // self.groups)
        return (batch, *(parts if self.form == "groups" else parts[::-1]), height, width)

    ndim = property(lambda self: len(self.shape))
    dtype = torch.float32
    device = torch.device("cpu")
    requires_grad = False
    is_cuda = False

    def size(self, axis: int | None = None) -> Any:
        """Return the shape, or the size of one dimension."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record a call of a torch function."""
        arguments = [*args, *(kwargs or {}).values()]
        nested = [v for value in arguments for v in (value if isinstance(value, list | tuple) else [value])]
        recorder = next(value.recorder for value in nested if isinstance(value, TensorProxy))
        return recorder.call(function.__name__, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.recorder.call(name, self, *args, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return self.recorder.call("getitem", self, index)

    def _operator(name: str) -> Any:  # type: ignore[misc]  # noqa: N805
        return lambda self, other: self.recorder.call(name, self, other)

    __add__ = __radd__ = __iadd__ = _operator("add")
    __mul__ = __rmul__ = __imul__ = _operator("mul")
    __truediv__ = __itruediv__ = _operator("div")
    __sub__ = __isub__ = _operator("sub")


def raise_unsupported_step(path: str, reason: str) -> NoReturn:
    """Raise EngineError for a module that the engine does not support; ``reason`` is a verb phrase."""
    raise EngineError(f"the engine cannot compile {path or 'the network'}: it {reason}; run the network in torch.")


class Recorder:
    """Appends steps to a graph.

    Args:
        functions: Supported torch functions by name (``graph_functions.FUNCTIONS``).
    """

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        self.functions = functions
        self.steps: list[Step] = []
        self.stack: list[str] = []

    @property
    def path(self) -> str:
        """Qualified name of the module that is running."""
        return self.stack[-1] if self.stack else ""

    def add(self, op: str, inputs: Iterable[Step], channels: int, *, size: Any = None, **fields: Any) -> TensorProxy:
        """Append a step and return a proxy for its output."""
        step = Step(op, self.path, list(inputs), channels, fields, size)
        self.steps.append(step)
        return TensorProxy(self, step)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Record a call of a torch function or tensor method, given its name."""
        kwargs.pop("inplace", None)
        plain = name.strip("_").removesuffix("_")
        function = self.functions.get(plain)
        if function is None:
            raise_unsupported_step(self.path, f"calls {plain}, for which the engine has no operation")
        try:
            return function(self, *args, **kwargs)
        except TypeError as error:
            raise_unsupported_step(self.path, f"calls {plain} in a way that the engine does not support ({error})")

    def reject(self, reason: str) -> NoReturn:
        """Raise EngineError for the module that is running."""
        raise_unsupported_step(self.path, reason)


def as_constant(value: Any) -> Tensor | None:
    """Return a number or tensor as a tensor, None for anything else."""
    if isinstance(value, bool):
        return None
    return torch.as_tensor(value, dtype=torch.float32) if isinstance(value, int | float | Tensor) else None
