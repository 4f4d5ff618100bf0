"""Ways to run a network, each set up as its own documentation advises for a processor."""

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

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "Prepared", "prepare"]

PRECISIONS = ("f32", "bf16", "int8")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
Array = npt.NDArray[Any]


class Prepared(NamedTuple):
    """A network that is ready to be timed.

    Attributes:
        runner: One run of the input it was prepared for.
        output: What that run gives, float32 (N, num_classes).
    """

    runner: Runner
    output: Array


class Backend(NamedTuple):
    """One way to run a network.

    Attributes:
        libraries: What must be installed, with the version that is reported first.
        precisions: Those it computes in on a processor.
        setting: How it is set up, for the header of a benchmark.
        build: (network in evaluation mode, float32 input, precision, threads, calibration batches) -> a function that
            runs the input and returns its output.
    """

    libraries: tuple[str, ...]
    precisions: tuple[str, ...]
    setting: str
    build: Callable[[nn.Module, Tensor, str, int, list[Array]], Callable[[], Any]]

    @property
    def version(self) -> str:
        """Of the library, or "" where it is not installed."""
        try:
            return version(self.libraries[0])
        except PackageNotFoundError:
            return ""


def prepare(
    backend: str, model: nn.Module, x: Tensor, *, precision: str, threads: int, calibration: list[Array] | None = None
) -> Prepared:
    """Builds the network for a backend.

    Args:
        backend: A key of ``BACKENDS``.
        model: In evaluation mode, float32; left as it is.
        x: Float32 (N, C, H, W), contiguous.
        precision: One of ``PRECISIONS``.
        threads: That share one run.
        calibration: Batches like ``x`` that int8 quantisation takes its ranges from; ``x`` alone by default.

    Raises:
        UnknownNameError: There is no such backend.
        ConfigurationError: It does not compute in this precision on a processor.
        MissingExtraError: Its library is not installed; the message tells the pip command.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS)
    chosen = BACKENDS[backend]
    if precision not in chosen.precisions:
        raise ConfigurationError(
            f"{backend} does not compute in {precision} on a processor; it has {', '.join(chosen.precisions)}."
        )
    for library in chosen.libraries:
        require(library, extra="bench")
    torch.set_num_threads(threads)
    run = chosen.build(model, x, precision, threads, calibration or [x.numpy()])
    output = run()
    array = output.float().numpy() if isinstance(output, Tensor) else np.asarray(output)
    return Prepared(Runner(run, lambda: torch.set_num_threads(threads)), np.array(array, dtype=np.float32))


def _eager(model: nn.Module, x: Tensor, precision: str, threads: int, _: list[Array]) -> Callable[[], Any]:
    model, x = _converted(model, x, precision)

    @torch.inference_mode()
    def run() -> Tensor:
        return model(x)

    return run


def _compile(model: nn.Module, x: Tensor, precision: str, threads: int, _: list[Array]) -> Callable[[], Any]:
    model, x = _converted(model, x, precision)
    compiled = torch.compile(model, options={"freezing": True})

    @torch.no_grad()  # freezing is not for inference mode
    def run() -> Any:
        return compiled(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        run()
    return run


def _converted(model: nn.Module, x: Tensor, precision: str) -> tuple[nn.Module, Tensor]:
    model = copy.deepcopy(model).to(DTYPES[precision]).to(memory_format=torch.channels_last)
    return model, x.to(DTYPES[precision]).to(memory_format=torch.channels_last)


def _onnxruntime(
    model: nn.Module, x: Tensor, precision: str, threads: int, calibration: list[Array]
) -> Callable[[], Any]:
    ort = require("onnxruntime", extra="bench")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")  # of the exporter, about itself
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
        warnings.simplefilter("ignore")  # of the tracer, about itself
        converted = openvino.convert_model(model, example_input=x)
    converted.reshape(list(x.shape))  # a fixed shape, as advised where it is known
    if precision == "int8":
        converted = quantize_openvino(converted, calibration)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    with _signal_stack_kept():
        request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
    array = x.numpy()
    return lambda: request.infer({0: array}, share_inputs=True, share_outputs=True)[0]


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Puts the stack that signals of this thread are handled on back to what it was.

    OpenVINO 2026.4 sets another one when it compiles for bf16, and frees it: the next Ctrl-C would end the process with
    a segmentation fault.
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
    session = engine.compile(model, precision=precision, threads=threads, calibration=images)
    array = x.numpy()
    return lambda: session(array)


BACKENDS: dict[str, Backend] = {
    "eager": Backend(("torch",), ("f32", "bf16"), "channels_last, inference_mode", _eager),
    "compile": Backend(("torch",), ("f32", "bf16"), "inductor with freezing, channels_last, no_grad", _compile),
    "onnxruntime": Backend(
        ("onnxruntime", "onnx", "onnxscript"),
        ("f32", "int8"),
        "dynamo export, all graph optimisations; int8: static, QDQ, by channel",
        _onnxruntime,
    ),
    "openvino": Backend(
        ("openvino",), PRECISIONS, "LATENCY hint, fixed shape, shared buffers; int8: NNCF, mixed preset", _openvino
    ),
    "engine": Backend(
        ("ghostnets",), PRECISIONS, "this package's own, for networks of Ghost modules; int8: by percentiles", _engine
    ),
}
