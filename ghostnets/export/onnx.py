"""Export to ONNX, with the default opset of torch's exporter; int8 is ONNX Runtime's static quantization (QDQ)."""

import logging
import warnings
from collections.abc import Collection, Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import ExportError, require
from ghostnets.export.deployed import ExportJob, trace

__all__ = ["quantize_onnx", "write"]


def write(job: ExportJob, path: Path) -> None:
    """Write an ``.onnx`` file; see ``FileFormat``."""
    onnx = require("onnx", extra="export")
    description = job.description
    outputs = ["predictions" if description.task == "detect" else description.output, "features"][
        : 1 + description.has_features
    ]
    program = trace(job)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # about the exporter's own internals
        exported = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=outputs, verbose=False)
    assert exported is not None
    model = exported.model_proto
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


def quantize_onnx(path: Path, calibration: Iterable[npt.NDArray[Any]], float_layers: Collection[str] = ()) -> None:
    """Quantize an ONNX file in place to static int8, with per-channel weight scales.

    Normalisation before the first convolution and softmax after the last linear layer stay in float32: their cost is
    negligible, and 256 levels are too coarse for probabilities.

    Args:
        path: ONNX file to replace.
        calibration: Input batches that determine the activation ranges.
        float_layers: Names of layers of the network that stay in float32, as their weights in the file are called.

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
    outside += _nodes_of(graph, float_layers)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches = iter([{graph.input[0].name: batch} for batch in calibration])

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(self.batches, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it warns about deliberate settings
    try:
        quantization.quantize_static(
            str(preprocessed),
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            nodes_to_exclude=outside,
        )
    finally:
        logging.getLogger().setLevel(level)
        preprocessed.unlink(missing_ok=True)


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
