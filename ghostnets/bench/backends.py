"""Inference backends, each configured as its own documentation recommends for CPUs."""

import copy
import ctypes
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.errors import ConfigurationError, UnknownNameError, require
from ghostnets.export.onnx import quantize_onnx
from ghostnets.export.openvino import quantize_openvino
from ghostnets.measure import Runner
from ghostnets.models.detection import Detector, DetectorMaps

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "PreparedModel", "prepare"]

PRECISIONS = ("f32", "bf16", "int8")
"""Precisions that ``benchmark`` times."""
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
Array = npt.NDArray[Any]


class PreparedModel(NamedTuple):
    """A network built for one backend and one input.

    Attributes:
        runner: Runs the network on that input.
        output: Output for that input, float32 (N, num_classes); of a detector (N, points, values), of a segmentation
            network (N, num_classes, H, W).
    """

    runner: Runner
    output: Array


class Backend(NamedTuple):
    """An inference backend.

    Attributes:
        libraries: Required packages; the version of the first one is reported.
        precisions: Precisions supported on CPUs.
        configuration: Description of its configuration, for the header of a benchmark.
        build: (network in evaluation mode, float32 input, precision, threads, calibration batches) -> function that
            runs the network on the input and returns the output.
    """

    libraries: tuple[str, ...]
    precisions: tuple[str, ...]
    configuration: str
    build: Callable[[nn.Module, Tensor, str, int, list[Array]], Callable[[], Any]]

    @property
    def version(self) -> str:
        """Version of the first library, or "" if it is not installed."""
        try:
            return version(self.libraries[0])
        except PackageNotFoundError:
            return ""


def prepare(
    backend: str, model: nn.Module, x: Tensor, *, precision: str, threads: int, calibration: list[Array] | None = None
) -> PreparedModel:
    """Build a network for a backend.

    Args:
        backend: A key of ``BACKENDS``.
        model: Network in evaluation mode, float32; left unchanged.
        x: Input, float32 (N, C, H, W), contiguous.
        precision: One of ``PRECISIONS``.
        threads: Number of threads per run.
        calibration: Batches shaped like ``x`` for int8 calibration; ``x`` alone by default.

    Raises:
        UnknownNameError: Unknown backend.
        ConfigurationError: The backend does not support the precision on CPUs.
        MissingExtraError: A required package is not installed; the message gives the pip command.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS)
    chosen = BACKENDS[backend]
    if precision not in chosen.precisions:
        raise ConfigurationError(
            f"{backend} does not support {precision} on CPUs; choose one of {', '.join(chosen.precisions)}."
        )
    for library in chosen.libraries:
        require(library, extra="bench")
    torch.set_num_threads(threads)
    run = chosen.build(model, x, precision, threads, calibration or [x.numpy()])
    output = run()
    array = output.float().numpy() if isinstance(output, Tensor) else np.asarray(output)
    return PreparedModel(Runner(run, lambda: torch.set_num_threads(threads)), np.array(array, dtype=np.float32))


def _eager(model: nn.Module, x: Tensor, precision: str, threads: int, _: list[Array]) -> Callable[[], Any]:
    model, x = _convert(model, x, precision)

    @torch.inference_mode()
    def run() -> Tensor:
        return model(x)

    return run


def _compile(model: nn.Module, x: Tensor, precision: str, threads: int, _: list[Array]) -> Callable[[], Any]:
    model, x = _convert(model, x, precision)
    compiled = torch.compile(model, options={"freezing": True})

    @torch.no_grad()  # freezing does not support inference mode
    def run() -> Any:
        return compiled(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the compiler's own internals
        run()
    return run


def _convert(model: nn.Module, x: Tensor, precision: str) -> tuple[nn.Module, Tensor]:
    model = copy.deepcopy(model).to(DTYPES[precision]).to(memory_format=torch.channels_last)
    return model, x.to(DTYPES[precision]).to(memory_format=torch.channels_last)


def _onnxruntime(
    model: nn.Module, x: Tensor, precision: str, threads: int, calibration: list[Array]
) -> Callable[[], Any]:
    ort = require("onnxruntime", extra="bench")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")  # warnings about the exporter's own internals
            torch.onnx.export(model, (x,), path, dynamo=True, external_data=False, verbose=False)
        if precision == "int8":
            quantize_onnx(path, calibration)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, inputs)[0]


def _openvino(model: nn.Module, x: Tensor, precision: str, threads: int, calibration: list[Array]) -> Callable[[], Any]:
    openvino = require("openvino", extra="bench")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the tracer's own internals
        converted = openvino.convert_model(model, example_input=x)
    converted.reshape(list(x.shape))  # static shapes are faster
    if precision == "int8":
        converted = quantize_openvino(converted, calibration)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    with _preserve_signal_stack():
        request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
    array = x.numpy()
    return lambda: request.infer({0: array}, share_inputs=True, share_outputs=True)[0]


class _SignalStack(ctypes.Structure):
    """Linux's ``stack_t``."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _preserve_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack on exit.

    OpenVINO 2026.4 replaces it when it compiles for bf16, and then frees the new one: the next Ctrl-C would crash the
    process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def _engine(model: nn.Module, x: Tensor, precision: str, threads: int, calibration: list[Array]) -> Callable[[], Any]:
    images = calibration if precision == "int8" else None
    network = DetectorMaps(model) if isinstance(model, Detector) else model
    session = engine.compile(network, precision=precision, threads=threads, calibration=images)
    array = x.numpy()
    return (lambda: _join_maps(session(array))) if network is not model else (lambda: session(array))


def _join_maps(maps: Any) -> Array:
    """Maps of a detector's levels, (N, values, H, W) each -> its predictions, (N, points, values)."""
    return np.concatenate([level.reshape(*level.shape[:2], -1).swapaxes(1, 2) for level in maps], axis=1)


BACKENDS: dict[str, Backend] = {
    "eager": Backend(("torch",), ("f32", "bf16"), "channels_last, inference_mode", _eager),
    "compile": Backend(("torch",), ("f32", "bf16"), "inductor with freezing, channels_last, no_grad", _compile),
    "onnxruntime": Backend(
        ("onnxruntime", "onnx", "onnxscript"),
        ("f32", "int8"),
        "dynamo export, all graph optimisations; int8: static, QDQ, per channel",
        _onnxruntime,
    ),
    "openvino": Backend(
        ("openvino",), PRECISIONS, "LATENCY hint, static shape, shared buffers; int8: NNCF, mixed preset", _openvino
    ),
    "engine": Backend(
        ("ghostnets",), PRECISIONS, "this package's engine for Ghost networks; int8: percentile calibration", _engine
    ),
}
"""Runtimes that ``benchmark`` times, by name."""
