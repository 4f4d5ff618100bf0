"""LiteRT (TensorFlow Lite), for phones and small devices: one file, run by XNNPACK on a processor.

The program takes one image at a time, of a fixed size, since its memory is laid out when it is written. The description
is appended to it as a zip file, as TensorFlow Lite's own metadata are: ``unzip`` shows it, and runtimes pass over it.
"""

import contextlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import require
from ghostnets.export.shipped import Order, trace

__all__ = ["write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    litert_torch = require("litert_torch", extra="litert")
    program = trace(order, one_image=True).run_decompositions({torch.ops.aten.upsample_nearest2d.vec: _nearest})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the converter, about itself, as all that it prints
        litert_torch.convert(program.module(), program.example_inputs[0]).export(str(path))
        if order.description.precision == "int8":
            path.write_bytes(_quantized(order, path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_KEY, order.description.to_json())


def _nearest(x: Tensor, output_size: list[int], scale_factors: list[float] | None) -> Tensor:
    """Nearest neighbours by rows and columns: (N, C, H, W) -> (N, C, *output_size).

    The converter takes the middle of a pixel for its place, which is another neighbour where the factor is no whole
    number (litert-torch 0.10; the 3 x 3 gate of a 7 x 7 map in GhostNetV2 and V3).
    """
    for axis, (old, new) in enumerate(zip(x.shape[2:], output_size, strict=True), 2):
        places = np.arange(new, dtype=np.float32) * np.float32(old / new)
        x = x.index_select(axis, torch.from_numpy(places.astype(np.int64).clip(max=old - 1)))
    return x


def _quantized(order: Order, path: Path) -> bytes:
    """The file with weights and maps in int8; input, softmax and output stay as they are."""
    quantizer = require("ai_edge_quantizer.quantizer", extra="litert")
    recipes = require("ai_edge_quantizer.recipe", extra="litert")
    names, manager = recipes.TFLOperationName, recipes.recipe_manager.RecipeManager()
    manager.add_static_config(".*", names.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for name in (names.INPUT, names.OUTPUT, names.SOFTMAX):
        manager.add_quantization_config(".*", name, algorithm_key=recipes.AlgorithmName.NO_QUANTIZE)
    work: Any = quantizer.Quantizer(str(path), manager.get_quantization_recipe())
    interpreter = require("ai_edge_litert.interpreter", extra="litert").Interpreter(str(path))
    (signature, names_of) = next(iter(interpreter.get_signature_list().items()))
    (input_name,) = names_of["inputs"]
    ranges = work.calibrate({signature: [{input_name: batch} for batch in order.calibration_batches()]})
    quantized: bytes = work.quantize(ranges).quantized_model
    return quantized
