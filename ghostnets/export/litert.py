"""Export to LiteRT (TensorFlow Lite), which XNNPACK runs on CPUs.

The program takes one image of a fixed size, because its memory is planned ahead of time. The description is appended as
a zip file, like TensorFlow Lite's own metadata: ``unzip`` shows it, and runtimes ignore it.
"""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostnets.errors import require
from ghostnets.export.deployed import ExportJob, trace

__all__ = ["write"]


def write(job: ExportJob, path: Path) -> None:
    """Write a ``.tflite`` file; see ``FileFormat``."""
    litert_torch = require("litert_torch", extra="litert")
    program = trace(job).run_decompositions({torch.ops.aten.upsample_nearest2d.vec: _upsample_nearest})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # about the converter's own internals, like its output
        litert_torch.convert(program.module(), program.example_inputs[0]).export(str(path))
        if job.description.precision == "int8":
            path.write_bytes(_quantize(job, path))
    job.description.append_to(path)


def _upsample_nearest(x: Tensor, output_size: list[int], scale_factors: list[float] | None) -> Tensor:
    """Upsample (N, C, H, W) to (N, C, *output_size) by nearest neighbours, as two gathers.

    litert-torch 0.10 converts upsample_nearest2d with half-pixel centres, which selects other neighbours than torch if
    the scale is not an integer, as for the 3 x 3 gate of a 7 x 7 map in GhostNetV2 and V3.
    """
    for axis, (old, new) in enumerate(zip(x.shape[2:], output_size, strict=True), 2):
        indices = np.arange(new, dtype=np.float32) * np.float32(old / new)
        x = x.index_select(axis, torch.from_numpy(indices.astype(np.int64).clip(max=old - 1)))
    return x


def _quantize(job: ExportJob, path: Path) -> bytes:
    """Quantize weights and activations of the file to int8; input, softmax and output stay in float."""
    quantizer = require("ai_edge_quantizer.quantizer", extra="litert")
    recipes = require("ai_edge_quantizer.recipe", extra="litert")
    names, manager = recipes.TFLOperationName, recipes.recipe_manager.RecipeManager()
    manager.add_static_config(".*", names.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for name in (names.INPUT, names.OUTPUT, names.SOFTMAX):
        manager.add_quantization_config(".*", name, algorithm_key=recipes.AlgorithmName.NO_QUANTIZE)
    model_quantizer: Any = quantizer.Quantizer(str(path), manager.get_quantization_recipe())
    interpreter = require("ai_edge_litert.interpreter", extra="litert").Interpreter(str(path))
    (signature, tensors) = next(iter(interpreter.get_signature_list().items()))
    (input_name,) = tensors["inputs"]
    ranges = model_quantizer.calibrate({signature: [{input_name: batch} for batch in job.calibration_batches()]})
    quantized: bytes = model_quantizer.quantize(ranges).quantized_model
    return quantized
