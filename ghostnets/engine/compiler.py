"""Networks are compiled from a module or a checkpoint, or loaded from a file, without torch."""

import math
import os
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ghostnets.engine.calibrate import METHODS, calibrate
from ghostnets.engine.mixed import keep_in_float
from ghostnets.engine.plan_file import PRECISIONS, read_plan
from ghostnets.engine.session import TIMED_SIZE, Session, no_memory
from ghostnets.errors import ConfigurationError
from ghostnets.native import ENGINE, import_native

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ghostnets.checkpoints import Checkpoint

__all__ = ["compile", "load", "run_int8", "time_layers"]

OUTPUTS = ("logits", "features", "features+logits")


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
    image_size: int = TIMED_SIZE,
) -> Session:
    """Compile a network for the CPU of this machine.

    Args:
        model: A network, a checkpoint of this project, or the path of one. Any ``nn.Module`` on images whose operations
            the engine has (docs/engine.md), such as the networks of this package, their ``Backbone``, and most
            convolutional networks of torchvision and timm. It is compiled in evaluation mode and not changed. Of a
            detector, its ``DetectorMaps`` are compiled.
        precision: How maps and weights are stored. ``"f32"``; ``"bf16"``: half the memory, about three digits;
            ``"int8"``: a quarter, maps in bytes with ranges from ``calibration``. Sums are float32 or int32 in all of
            them. ``"auto"``: the fastest on the machine that runs it, int8 only with ``calibration``, and with fewer
            ``threads`` where that is faster; measured once a machine, in about a second (``Session.choice``).
        output: ``"logits"``; ``"features"``, the input of the classifier; or ``"features+logits"``, both side by side,
            (N, features + classes). A network that returns maps, such as a backbone, gives the list of them.
        threads: See ``Session``.
        mean: Mean of pixels in [0, 1], one value a channel, for uint8 images; a checkpoint has its own.
        std: Standard deviation of these pixels.
        isa: See ``Session``.
        calibration: For int8 and auto, batches of images as for a session, of the kind that the network is used on;
            a few dozen images are enough.
        method: For int8, ``"percentile"`` or ``"minmax"``: how ranges follow from the images; see ``calibrate``.
        float_layers: For int8, names of modules that still compute in float32, such as the sensitive layers that
            ``ghostnets.compress.quantize`` finds; besides those of a quantised checkpoint.
        image_size: See ``Session``; a checkpoint has its own.

    Raises:
        EngineError: The engine was not built, or does not support a module of the network, which is named.
        ConfigurationError: An argument is out of range.
        CheckpointError: The checkpoint cannot be read.
    """
    import_native(ENGINE)
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    if method not in METHODS:
        raise ConfigurationError(f"method is {method!r}; it must be {' or '.join(METHODS)}.")
    if precision != "auto" and (calibration is None) == (precision == "int8"):
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
        model = read_checkpoint(model, task=None)
    if isinstance(model, Checkpoint):
        image_size = model.preprocessing.image_size
        mean, std = model.preprocessing.mean, model.preprocessing.std
        float_layers = (*float_layers, *model.float_layers)
        model = model.build()
    model = _without_flattening(model)
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
            raise no_memory() from error
    plan.precision = precision
    return Session(plan, threads=threads, isa=isa, image_size=image_size)


def _without_flattening(network: "nn.Module") -> "nn.Module":
    """Return a detector as a network that returns maps, which the engine does not flatten, and others as they are."""
    from ghostnets.models.detection import Detector, DetectorMaps

    return DetectorMaps(network) if isinstance(network, Detector) else network


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    isa: str | None = None,
    precision: str | None = None,
    image_size: int = TIMED_SIZE,
) -> Session:
    """Read a file that ``Session.save`` wrote; needs no torch.

    Args:
        path: File to read.
        threads: See ``Session``.
        isa: See ``Session``.
        precision: See ``Session``.
        image_size: See ``Session``.

    Raises:
        EngineError: The engine was not built, or the file is missing, damaged or of another version.
    """
    import_native(ENGINE)
    return Session(read_plan(path), threads=threads, isa=isa, precision=precision, image_size=image_size)


def time_layers(
    model: "nn.Module",
    shape: tuple[int, int, int],
    *,
    precision: str = "f32",
    threads: int = 1,
    runs: int = 20,
    isa: str | None = None,
) -> dict[str, float]:
    """Measure the time of the modules of a network in the engine, for a budget of time of ``ghostnets.ghostify``.

    Args:
        model: Network, as for ``compile``.
        shape: Channels, height and width of the image, which is random.
        precision: ``"f32"`` or ``"bf16"``.
        threads: Number of threads.
        runs: Number of runs, whose median by module counts; see ``Session.profile``.
        isa: See ``Session``.

    Returns:
        Seconds by the name of the convolution or linear layer, where it is computed by itself, or of another module;
        the sum is the time of one run.

    Raises:
        EngineError: The engine was not built, or does not support a module of the network, which is named.
    """
    session = compile(model, precision=precision, threads=threads, isa=isa)
    image = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    layers = [name for name, module in model.named_modules() if type(module).__name__ in ("Conv2d", "Linear")]
    seconds: dict[str, float] = {}
    for layer in session.profile(image, runs=runs):
        inside = [name for name in layers if layer.name and name.startswith(f"{layer.name}.")]
        name = inside[0] if len(inside) == 1 else layer.name
        seconds[name] = seconds.get(name, 0.0) + layer.seconds
    return seconds


def run_int8(
    model: "nn.Module",
    calibration: "Sequence[Tensor]",
    float_layers: Collection[str],
    images: "Tensor",
    *,
    method: str = "percentile",
) -> "Tensor":
    """Run a network in int8, for ``ghostnets.compress.quantize(..., run_int8=...)``.

    Args:
        model: As for ``compile``, with one output; or a detector.
        calibration: As for ``compile``.
        float_layers: As for ``compile``.
        images: float32 (N, C, H, W).
        method: As for ``compile``.

    Returns:
        Outputs, float32 (N, ...).

    Raises:
        EngineError: As by ``compile``.
        ConfigurationError: As by ``compile``.
    """
    import torch

    options: dict[str, Any] = {"calibration": calibration, "float_layers": float_layers, "method": method}
    outputs = compile(model, precision="int8", threads=1, **options)(images)
    if not isinstance(outputs, list | tuple):
        return torch.as_tensor(outputs)
    if len(outputs) == 1:
        return torch.as_tensor(outputs[0])
    return torch.cat([torch.as_tensor(each).flatten(2) for each in outputs], 2).transpose(1, 2)  # as the detector
