"""ONNX, opset as the exporter of torch chooses it; int8 as ONNX Runtime quantises, in the QDQ format."""

import logging
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import require
from ghostnets.export.shipped import Order, trace

__all__ = ["quantize", "write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    onnx = require("onnx", extra="export")
    description = order.description
    outputs = [description.output, "features"][: 1 + description.has_features]
    program = trace(order)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # of the exporter, about itself
        exported = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=outputs, verbose=False)
    assert exported is not None
    model = exported.model_proto
    if description.precision == "int8":
        onnx.save(model, path)
        quantize(path, order.calibration_batches())
        model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: description.to_json()})
    model.producer_name, model.doc_string = (
        "ghostnets",
        f"{description.architecture}, {len(description.class_names)} classes",
    )
    onnx.save(model, path)


def quantize(path: Path, calibration: Iterable[npt.NDArray[Any]]) -> None:
    """Quantises an ONNX file to int8, statically, with a scale for each channel of weights; the file is replaced.

    What stands before the first convolution or behind the last linear layer, normalisation and softmax, stays in
    float32: they cost nothing, and a probability in 256 steps is none.

    Args:
        path: The file.
        calibration: Inputs, from which the ranges of all maps are taken.
    """
    onnx = require("onnx", extra="export")
    quantization = require("onnxruntime.quantization", extra="export")
    shape_inference = require("onnxruntime.quantization.shape_inference", extra="export")
    prepared = path.with_name(f"prepared-{path.name}")
    shape_inference.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    graph = onnx.load(str(prepared)).graph
    is_layer = [node.op_type in ("Conv", "Gemm", "MatMul") for node in graph.node]
    first, last = is_layer.index(True), len(is_layer) - is_layer[::-1].index(True)
    outside = [node.name for node in [*graph.node[:first], *graph.node[last:]]]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches = iter([{graph.input[0].name: batch} for batch in calibration])

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(self.batches, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it warns of choices that were made on purpose
    try:
        quantization.quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            nodes_to_exclude=outside,
        )
    finally:
        logging.getLogger().setLevel(level)
        prepared.unlink(missing_ok=True)
