"""Compiled networks, called with images and saved."""

import copy
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ghostnets.cores import usable_cores
from ghostnets.engine.choice import PrecisionChoice, choose
from ghostnets.engine.layer_times import LayerProfile, medians
from ghostnets.engine.plan import Array, Plan
from ghostnets.engine.plan_file import PRECISIONS, write_plan
from ghostnets.errors import ConfigurationError, EngineError
from ghostnets.native import ENGINE, import_native, missing_native

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TIMED_SIZE", "Session", "no_memory"]

TIMED_SIZE = 224
"""Height and width of the image that is timed for the precision "auto", unless the network has its own."""


class Session:
    """A network that runs in the engine; returned by ``compile`` or ``load``.

    Called with images, it returns the network's output in float32, tensors for a tensor and arrays for an array:
    logits or features (N, C), or the list of maps (N, C, H, W) of a backbone. The first call with a new shape takes
    longer, as schedules are cached by shape. A session is thread-safe, and concurrent calls take turns; separate
    sessions run in parallel, and copies share the weights. In a forked child it starts its own threads. After an
    error it runs the next images as before.

    Args:
        plan: Plan of the network.
        threads: Number of threads that share the work; all processors of this process by default.
        isa: Instruction set, such as ``"avx2"``; the best that the processor has by default.
        precision: The plan's by default; ``"auto"``: the fastest on this machine that is no less precise than it.
        image_size: Height and width of the image that is timed for ``"auto"``.

    Attributes:
        choice: What was measured for ``"auto"``, and chosen; else None.

    Raises:
        EngineError: The engine was not built, or the plan is damaged.
        ConfigurationError: ``threads`` is below 1, the processor has no such instruction set, or the plan not what the
            precision needs.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        threads: int | None = None,
        isa: str | None = None,
        precision: str | None = None,
        image_size: int = TIMED_SIZE,
    ) -> None:
        threads = _checked_threads(threads)
        native = import_native(ENGINE)
        _check_isa(native, isa)
        self.plan = plan
        self.choice: PrecisionChoice | None = None
        self._precision = precision or plan.precision
        _check_precision(plan, precision)
        try:
            if self._precision == "auto":
                self.choice = choose(plan, native, threads=threads, isa=isa, image_size=image_size)
                self._precision, threads = self.choice.precision, self.choice.threads
            self._native = native.Session(plan.native(self._precision), plan.tensors, threads, isa or "")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EngineError(f"the plan cannot be run ({error}); compile the network again.") from error
        except (MemoryError, RuntimeError) as error:
            raise no_memory() if isinstance(error, MemoryError) else _no_threads(threads, error) from error

    def copy(self, *, threads: int | None = None) -> "Session":
        """Return a session with its own threads and maps that shares the weights in memory.

        Args:
            threads: Number of threads of the new session; all processors of this process by default.

        Raises:
            ConfigurationError: ``threads`` is below 1.
            EngineError: The threads cannot be started, or there is not enough memory.
        """
        threads = _checked_threads(threads)
        made = copy.copy(self)
        try:
            made._native = self._native.share_weights(threads)
        except (MemoryError, RuntimeError) as error:
            raise no_memory() if isinstance(error, MemoryError) else _no_threads(threads, error) from error
        return made

    @property
    def threads(self) -> int:
        """Number of threads that share the work, including the caller's."""
        return int(self._native.threads)

    @property
    def precision(self) -> str:
        """Storage format of maps and weights: ``"f32"``, ``"bf16"`` or ``"int8"``."""
        return self._precision

    @property
    def memory_bytes(self) -> int:
        """Bytes that are reserved for maps, without the weights.

        More than 64 MB are given back when they are more than four times what the latest 16 calls needed.
        """
        return int(self._native.memory_bytes)

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return str(self._native.isa)

    @overload
    def __call__(self, images: "Tensor") -> "Tensor | list[Tensor]": ...
    @overload
    def __call__(self, images: npt.NDArray[Any]) -> Array | list[Array]: ...
    def __call__(self, images: Any) -> Any:
        """Runs the network.

        Args:
            images: Float32 (N, C, H, W), normalised as the network expects, or uint8 (N, H, W, C), which are
                normalised here. Tensors must be on the CPU. Contiguous images are not copied.

        Returns:
            Float32: logits before any softmax, or features, (N, C); for a backbone its maps (N, C, H, W), finest first.

        Raises:
            ConfigurationError: The shape or type is not supported, or the images are uint8 and ``compile`` was called
                without ``mean`` and ``std``.
        """
        array = self._array(images)
        outputs = self._run(self._native.run, array) if len(array) else self._empty_outputs(array)
        results = outputs if isinstance(images, np.ndarray) else list(map(import_module("torch").from_numpy, outputs))
        return results if self.plan.gives_maps else results[0]

    def profile(self, images: "npt.NDArray[Any] | Tensor", *, runs: int = 20) -> list[LayerProfile]:
        """Measure the time of each layer, the median of some runs, which the clock slows by some per cent.

        Args:
            images: Images as for a call, at least one.
            runs: Number of runs, after a first one that is not counted.

        Raises:
            ConfigurationError: The shape or type is not supported, or there is no image.
        """
        array = self._array(images)
        if not len(array) or not isinstance(runs, int) or runs < 1:
            raise ConfigurationError(f"there are {len(array)} images and {runs} runs; at least one of each is needed.")
        self._run(self._native.run, array)
        rows: list[Any] = []
        for _ in range(runs):
            self._run(lambda images, outputs: rows.append(self._native.profile(images, outputs)), array)
        return medians(rows)

    def _run(self, run: Callable[[npt.NDArray[Any], list[Array]], None], images: npt.NDArray[Any]) -> list[Array]:
        """Call ``run(images, outputs)`` with new outputs, and return these."""
        try:
            outputs = self._empty_outputs(images)
            run(images, outputs)
        except MemoryError as error:
            raise EngineError(
                f"there is not enough memory for images of {images.shape}; pass fewer or smaller ones at a time."
            ) from error
        except ValueError as error:
            raise EngineError(
                f"the network cannot run images of {images.shape} ({error}); try another size."
            ) from error
        except RuntimeError as error:
            raise _no_threads(self.threads, error) from error
        return outputs

    def _empty_outputs(self, images: npt.NDArray[Any]) -> list[Array]:
        """Allocate the outputs for these images."""
        height, width = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:]
        return self.plan.empty_outputs(self._native, len(images), height, width)

    def _array(self, images: Any) -> npt.NDArray[Any]:
        """Return the images as a contiguous array, after a check of shape and type."""
        array = images
        if not isinstance(images, np.ndarray):
            torch = sys.modules.get("torch")  # there is no tensor unless it is loaded
            if torch is None or not isinstance(images, torch.Tensor):
                raise ConfigurationError(
                    f"the images are a {type(images).__name__}; pass an array of NumPy or a tensor of torch,"
                    " uint8 (N, H, W, C) or float32 (N, C, H, W)."
                )
            if images.device.type != "cpu" or images.layout != torch.strided or images.dtype == torch.bfloat16:
                raise ConfigurationError(
                    f"the images are a tensor of {images.dtype} on {images.device}; pass a dense one of uint8 or"
                    " float32 on the CPU."
                )
            array = images.detach().numpy()
        self._check(array)
        return np.ascontiguousarray(array)

    def _check(self, images: npt.NDArray[Any]) -> None:
        is_bytes, channels = images.dtype == np.uint8, self.plan.in_channels
        if is_bytes and not self.plan.mean:
            raise ConfigurationError(
                "the images are uint8, but the network was compiled without their normalisation; give mean= and std= to"
                " compile, or pass normalised float32 images (N, C, H, W)."
            )
        expected = f"uint8 (N, H, W, {channels})" if is_bytes else f"float32 (N, {channels}, H, W)"
        fits = images.ndim == 4 and images.shape[3 if is_bytes else 1] == channels
        if not fits or images.dtype not in (np.uint8, np.float32) or min(images.shape[1:], default=0) < 1:
            raise ConfigurationError(
                f"the images are {images.dtype} {images.shape}; expected are {expected}, H and W from 1."
            )

    def save(self, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> None:
        """Write weights and plan as one safetensors file, which ``load`` reads without torch.

        Args:
            path: File to write.
            metadata: Further metadata of the file, which ``load`` ignores.

        Raises:
            StorageError: The file could not be written; an existing one is unchanged.
        """
        write_plan(self.plan, path, metadata=metadata)


def is_built() -> bool:
    """Return whether the native module of the engine was installed."""
    return missing_native(ENGINE) is None


def _checked_threads(threads: int | None) -> int:
    threads = usable_cores() if threads is None else threads
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise ConfigurationError(f"threads is {threads!r}; it must be an integer from 1 to 1024.")
    return threads


def _check_isa(native: Any, isa: str | None) -> None:
    """Raise ConfigurationError if the processor does not have the instruction set."""
    try:
        known = native.instruction_sets()
    except MemoryError as error:
        raise no_memory() from error
    if isa is not None and isa not in known:
        raise ConfigurationError(f"isa is {isa!r}; this processor has {', '.join(known)}.")


def _check_precision(plan: Plan, precision: str | None) -> None:
    """Raise ConfigurationError if the plan cannot be run in a precision; None passes."""
    known = ["auto", plan.precision] if plan.floats else [p for p in PRECISIONS if p != "int8" or plan.ranges]
    if precision is not None and precision not in known:
        raise ConfigurationError(f"precision is {precision!r}; this plan can be run in {', '.join(known)}.")


def no_memory() -> EngineError:
    """Return the error of a network that does not fit the memory."""
    return EngineError("there is not enough memory for the network or its calibration images; free some.")


def _no_threads(threads: int, error: RuntimeError) -> EngineError:
    return EngineError(f"{threads} threads cannot be started ({error}); ask for fewer.")
