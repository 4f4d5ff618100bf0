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

__all__ = [
    "ChannelsError",
    "Recorder",
    "Step",
    "SymbolicSize",
    "TensorProxy",
    "as_constant",
    "raise_unsupported_step",
]


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

    def __eq__(self, other: object) -> bool:
        """Whether two sizes are known to be equal; an error if that depends on the images."""
        if (
            not isinstance(other, SymbolicSize)
            or self.axis != other.axis
            or (self.axis != 0 and self.step is not other.step)
        ):
            raise_unsupported_step(self.recorder.path, "compares the size of a map")
        return True

    __hash__ = object.__hash__

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


class Storage:
    """The values behind a proxy and its views: the step that computed them, which an operation in place replaces.

    Attributes:
        step: Step whose output this is.
        version: Number of operations in place.
        base: Storage that this is a part of, such as a slice of channels, and its version then.
        has_changed_part: Whether a part was changed in place since.
    """

    def __init__(self, step: Step, base: "Storage | None" = None) -> None:
        self.step, self.version, self.base, self.has_changed_part = step, 0, base, False
        self.base_version = 0 if base is None else base.version

    def overwrite(self, step: Step) -> None:
        """Replace the values by the output of a step."""
        self.step, self.version = step, self.version + 1
        base = self.base
        while base is not None:
            base.has_changed_part, base = True, base.base

    def is_outdated(self) -> bool:
        """Return whether what this is a part of has changed."""
        base = self.base
        return base is not None and (base.version != self.base_version or base.is_outdated())


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
        self.recorder, self.form, self.groups, self.memory = recorder, form, groups, Storage(step)

    @property
    def step(self) -> Step:
        """Step that computes the values."""
        if self.memory.has_changed_part or self.memory.is_outdated():
            self.recorder.reject("changes a part of a map in place that is read otherwise too")
        return self.memory.step

    def as_form(self, form: str, groups: int = 1) -> "TensorProxy":
        """Return another view of the same values."""
        made = TensorProxy(self.recorder, self.step, form, groups)
        made.memory = self.memory
        return made

    def like(self, step: Step) -> "TensorProxy":
        """Return the output of a step that does not change the shape."""
        return TensorProxy(self.recorder, step, self.form, self.groups)

    def as_part_of(self, whole: "TensorProxy") -> "TensorProxy":
        """Make the values a part of those of another proxy, as slices are; return the proxy."""
        self.memory = Storage(self.step, whole.memory)
        return self

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape, with ``SymbolicSize`` for sizes that depend on the images."""
        step = self.memory.step
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

    __add__ = __radd__ = _operator("add")
    __mul__ = __rmul__ = _operator("mul")
    __truediv__, __sub__ = _operator("div"), _operator("sub")
    __iadd__, __imul__, __itruediv__, __isub__ = map(_operator, ("add_", "mul_", "div_", "sub_"))


class ChannelsError(EngineError):
    """A convolution has other channels than its map, so the images may have another number of them."""


def raise_unsupported_step(path: str, reason: str, error: type[EngineError] = EngineError) -> NoReturn:
    """Raise EngineError for a module that the engine does not support; ``reason`` is a verb phrase."""
    raise error(f"the engine cannot compile {path or 'the network'}: it {reason}; run the network in torch.")


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
        """Record a call of a torch function or tensor method, given its name, also in place."""
        is_in_place = kwargs.pop("inplace", False) or (name.endswith("_") and not name.endswith("__"))
        plain = name.strip("_").removesuffix("_")
        function = self.functions.get(plain)
        if function is None:
            raise_unsupported_step(self.path, f"calls {plain}, for which the engine has no operation")
        try:
            result = function(self, *args, **kwargs)
        except TypeError as error:
            raise_unsupported_step(self.path, f"calls {plain} in a way that the engine does not support ({error})")
        if not is_in_place:
            return result
        if not args or not isinstance(args[0], TensorProxy):
            self.reject(f"changes a constant in place by {plain}")
        if result is not args[0]:
            args[0].memory.overwrite(result.step)
        return args[0]

    def reject(self, reason: str) -> NoReturn:
        """Raise EngineError for the module that is running."""
        raise_unsupported_step(self.path, reason)


def as_constant(value: Any) -> Tensor | None:
    """Return a number or tensor as a tensor, None for anything else."""
    if isinstance(value, bool):
        return None
    return torch.as_tensor(value, dtype=torch.float32) if isinstance(value, int | float | Tensor) else None
