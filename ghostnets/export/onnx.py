"""Export to ONNX, with torch's default opset or a given one; int8 is ONNX Runtime's static quantization (QDQ).

A file with a fixed batch or a given opset is meant for compilers, which know fewer operators than ONNX Runtime: its
means of maps are ``GlobalAveragePool``, which every opset has.
"""

import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from ghostnets.artefacts import METADATA_KEY
from ghostnets.data import spread
from ghostnets.errors import ExportError, require
from ghostnets.export.deployed import ExportJob, trace

__all__ = ["quantize_onnx", "write"]

PERCENT = 99.99  # percentile of a map's values at either end of its range, as in the engine
MAX_CALIBRATION = 64  # batches; their histograms take most of the time
WEIGHTLESS = ("Relu", "Clip", "HardSwish", "Concat")  # operations that follow a layer in float32
TORCH_OPSET = 18  # the lowest that torch writes by itself


def write(job: ExportJob, path: Path) -> None:
    """Write an ``.onnx`` file; see ``FileFormat``."""
    onnx = require("onnx", extra="export")
    description = job.description
    outputs = [description.output_name, "features"][: 1 + description.has_features]
    program = trace(job)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # about the exporter's own internals
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=outputs,
            verbose=False,
            opset_version=max(job.opset, TORCH_OPSET) if job.opset else None,
        )
    assert exported is not None
    model = exported.model_proto
    if job.opset or description.batch:
        model = _with_simple_operators(model, job.opset)
    if description.precision == "int8":
        onnx.save(model, path)
        quantize_onnx(path, job.calibration_batches(), job.checkpoint.float_layers)
        model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: description.to_json()})
    model.producer_name, model.doc_string = (
        "ghostnets",
        f"{description.architecture}, {len(description.class_names)} classes",
    )
    onnx.save(model, path)


def _with_simple_operators(model: Any, opset: int | None) -> Any:
    """Return a model whose means of maps are global average pooling, converted to an opset, with inferred shapes.

    Raises:
        ExportError: The network has no form in this opset.
    """
    onnx = require("onnx", extra="export")
    axes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and {int(axis) % 4 for axis in axes[node.input[1]]} == {2, 3}:
            assert {attribute.name: attribute.i for attribute in node.attribute}["keepdims"]
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    if opset and opset < TORCH_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except RuntimeError as error:
            raise ExportError(
                f"the network cannot be converted to opset {opset} ({str(error).splitlines()[-1]});"
                " choose a higher one."
            ) from error
    (found,) = (entry.version for entry in model.opset_import if entry.domain == "")
    if opset and found != opset:
        raise ExportError(f"torch writes opset {found} instead of {opset}; choose one from {TORCH_OPSET} to {found}.")
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)
    return model


def quantize_onnx(path: Path, calibration: Sequence[npt.NDArray[Any]], float_layers: Collection[str] = ()) -> None:
    """Quantize an ONNX file in place to static int8, with per-channel weight scales.

    The range of a map is between the percentiles 0.01 and 99.99 of its values in up to ``MAX_CALIBRATION`` batches, one
    at a time in memory. Normalisation before the first convolution and softmax after the last linear layer stay in
    float32: their cost is negligible, and 256 levels are too coarse for probabilities.

    Args:
        path: ONNX file to replace.
        calibration: Input batches that determine the activation ranges.
        float_layers: Names of layers of the network that stay in float32, as their weights in the file are called, with
            the operations without weights that read them.

    Raises:
        ExportError: A layer is not found.
    """
    onnx = require("onnx", extra="export")
    quantization = require("onnxruntime.quantization", extra="export")
    shape_inference = require("onnxruntime.quantization.shape_inference", extra="export")
    preprocessed = path.with_name(f"preprocessed-{path.name}")
    shape_inference.quant_pre_process(str(path), str(preprocessed), skip_symbolic_shape=True)
    graph = onnx.load(str(preprocessed)).graph
    is_layer = [node.op_type in ("Conv", "Gemm", "MatMul") for node in graph.node]
    first, last = is_layer.index(True), len(is_layer) - is_layer[::-1].index(True)
    outside = [node.name for node in [*graph.node[:first], *graph.node[last:]]]
    outside += _with_readers(graph, _nodes_of(graph, float_layers))
    chosen = spread(calibration, MAX_CALIBRATION)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches: Iterator[npt.NDArray[Any]] = iter(())

        def __len__(self) -> int:
            return len(chosen)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.batches = iter(chosen[start_index:end_index])

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {graph.input[0].name: batch}

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it warns about deliberate settings
    try:
        with redirect_stdout(StringIO()):  # the calibrator's progress
            quantization.quantize_static(
                str(preprocessed),
                str(path),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                nodes_to_exclude=outside,
                calibrate_method=quantization.CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENT, "CalibStridedMinMax": 1},  # so many batches at a time
            )
    finally:
        logging.getLogger().setLevel(level)
        preprocessed.unlink(missing_ok=True)


def _with_readers(graph: Any, names: Sequence[str]) -> list[str]:
    """Add the nodes without weights that read the outputs of some nodes, or of other added ones.

    ONNX Runtime joins a map of float32 and one of int8 inaccurately: in a GhostNet, a Ghost module half in float32 had
    four times the error of the same file without its optimisations.
    """
    found, maps = list(names), {output for node in graph.node if node.name in names for output in node.output}
    for node in graph.node:  # in order of execution
        if node.op_type in WEIGHTLESS and node.name not in found and maps.intersection(node.input):
            found.append(node.name)
            maps.update(node.output)
    return found


def _nodes_of(graph: Any, layers: Collection[str]) -> list[str]:
    """Return the nodes that read the weights of some layers; conversion keeps the weights' names."""
    found = []
    for layer in layers:
        prefixes = (f"network.{layer}.", f"{layer}.")
        nodes = [node.name for node in graph.node if any(name.startswith(prefixes) for name in node.input)]
        if not nodes:
            raise ExportError(
                f"the layer {layer} that is to stay in float32 is not in the ONNX file; report the network."
            )
        found += nodes
    return found
