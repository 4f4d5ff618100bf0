"""Compiled networks: compiled from a module or a checkpoint, called with images, saved and loaded without torch."""

import copy
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ghostnets.cores import usable_cores
from ghostnets.engine.calibrate import METHODS, calibrate
from ghostnets.engine.layer_times import LayerProfile, medians
from ghostnets.engine.mixed import keep_in_float
from ghostnets.engine.plan import Array, Plan
from ghostnets.engine.plan_file import PRECISIONS, read_plan, write_plan
from ghostnets.errors import ConfigurationError, EngineError
from ghostnets.native import ENGINE, import_native, missing_native

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ghostnets.checkpoints import Checkpoint

__all__ = ["Session", "compile", "load"]

OUTPUTS = ("logits", "features", "features+logits")


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

    Raises:
        EngineError: The engine was not built, or the plan is damaged.
        ConfigurationError: ``threads`` is below 1, or the processor has no such instruction set.
    """

    def __init__(self, plan: Plan, *, threads: int | None = None, isa: str | None = None) -> None:
        threads = _checked_threads(threads)
        native = import_native(ENGINE)
        _check_isa(native, isa)
        self.plan = plan
        try:
            self._native = native.Session(plan.native(), plan.tensors, threads, isa or "")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EngineError(f"the plan cannot be run ({error}); compile the network again.") from error
        except (MemoryError, RuntimeError) as error:
            raise _no_memory() if isinstance(error, MemoryError) else _no_threads(threads, error) from error

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
            raise _no_memory() if isinstance(error, MemoryError) else _no_threads(threads, error) from error
        return made

    @property
    def threads(self) -> int:
        """Number of threads that share the work, including the caller's."""
        return int(self._native.threads)

    @property
    def precision(self) -> str:
        """Storage format of maps and weights: ``"f32"``, ``"bf16"`` or ``"int8"``."""
        return self.plan.precision

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
        plan, count = self.plan, len(images)
        channels = [plan.layouts[output].out_channels for output in plan.outputs]
        if not plan.gives_maps:
            return [np.empty((count, number), np.float32) for number in channels]
        height, width = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:]
        sizes = self._native.output_sizes(max(1, count), height, width)
        return [np.empty((count, number, *size), np.float32) for number, size in zip(channels, sizes, strict=True)]

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


def compile(  # noqa: A001
    model: "nn.Module | Checkpoint | str | os.PathLike[str]",
    *,
    precision: str = "f32",
    output: str = "logits",
    threads: int | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    isa: str | None = None,
    calibration: "Iterable[npt.NDArray[Any] | Tensor] | None" = None,
    method: str = "percentile",
    float_layers: Collection[str] = (),
) -> Session:
    """Compile a network for the CPU of this machine.

    Args:
        model: A network, a checkpoint of this project, or the path of one. Any ``nn.Module`` on images whose operations
            the engine has (docs/engine.md), such as the networks of this package, their ``Backbone``, and most
            convolutional networks of torchvision and timm. It is compiled in evaluation mode and not changed.
        precision: How maps and weights are stored. ``"f32"``; ``"bf16"``: half the memory, about three digits;
            ``"int8"``: a quarter, maps in bytes with ranges from ``calibration``. Sums are float32 or int32 in all of
            them.
        output: ``"logits"``; ``"features"``, the input of the classifier; or ``"features+logits"``, both side by side,
            (N, features + classes). A network that returns maps, such as a backbone, gives the list of them.
        threads: See ``Session``.
        mean: Mean of pixels in [0, 1], one value a channel, for uint8 images; a checkpoint has its own.
        std: Standard deviation of these pixels.
        isa: See ``Session``.
        calibration: For int8, batches of images as for a session, of the kind that the network is used on; some tens of
            images are enough.
        method: For int8, ``"percentile"`` or ``"minmax"``: how ranges follow from the images; see ``calibrate``.
        float_layers: For int8, names of modules that compute in float32 all the same, such as the sensitive layers that
            ``ghostnets.compress.quantize`` finds; besides those of a quantised checkpoint.

    Raises:
        EngineError: The engine was not built, or does not support a module of the network, which is named.
        ConfigurationError: An argument is out of its range.
        CheckpointError: The checkpoint cannot be read.
    """
    import_native(ENGINE)
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    if method not in METHODS:
        raise ConfigurationError(f"method is {method!r}; it must be {' or '.join(METHODS)}.")
    if (calibration is None) == (precision == "int8"):
        raise ConfigurationError(
            "int8 needs calibration images; give calibration= some batches of the kind that the network is used on."
            if calibration is None
            else f"calibration is for int8, but precision is {precision!r}; omit it."
        )
    from ghostnets.checkpoints import Checkpoint, read_checkpoint
    from ghostnets.engine.planner import make_plan

    if output not in OUTPUTS:
        raise ConfigurationError(f"output is {output!r}; it must be one of {', '.join(OUTPUTS)}.")
    if isinstance(model, str | os.PathLike):
        model = read_checkpoint(model)
    if isinstance(model, Checkpoint):
        mean, std = model.preprocessing.mean, model.preprocessing.std
        float_layers = (*float_layers, *model.float_layers)
        model = model.build()
    plan = make_plan(model, mean=tuple(mean), std=tuple(std), output=output)
    if float_layers and precision == "int8":
        keep_in_float(plan, float_layers)
    is_number = all(isinstance(value, int | float) and math.isfinite(value) for value in (*mean, *std))
    if not is_number or len(mean) != len(std) or len(mean) not in (0, plan.in_channels) or min(std, default=1) <= 0:
        raise ConfigurationError(
            f"mean is {mean} and std {std}; they must have {plan.in_channels} values each, those of std above 0."
        )
    if calibration is not None:
        observer = Session(plan, threads=1, isa=isa)
        try:
            calibrate(plan, observer._native, map(observer._array, calibration), method=method)
        except MemoryError as error:
            raise _no_memory() from error
    plan.precision = precision
    return Session(plan, threads=threads, isa=isa)


def load(path: str | os.PathLike[str], *, threads: int | None = None, isa: str | None = None) -> Session:
    """Read a file that ``Session.save`` wrote; needs no torch.

    Args:
        path: File to read.
        threads: See ``Session``.
        isa: See ``Session``.

    Raises:
        EngineError: The engine was not built, or the file is missing, damaged or of another version.
    """
    import_native(ENGINE)
    return Session(read_plan(path), threads=threads, isa=isa)


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
        raise _no_memory() from error
    if isa is not None and isa not in known:
        raise ConfigurationError(f"isa is {isa!r}; this processor has {', '.join(known)}.")


def _no_memory() -> EngineError:
    return EngineError("there is not enough memory for the network or its calibration images; free some.")


def _no_threads(threads: int, error: RuntimeError) -> EngineError:
    return EngineError(f"{threads} threads cannot be started ({error}); ask for fewer.")
