"""OpenVINO: .xml and .bin; f16 is how the weights are stored, int8 as NNCF quantises."""

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import StorageError, require
from ghostnets.export.shipped import Order, trace

__all__ = ["quantized", "save", "write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    openvino = require("openvino", extra="export")
    description = order.description
    program = trace(order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        model = openvino.convert_model(program)
    side, channels = (
        -1 if description.any_size else description.preprocessing.image_size,
        description.preprocessing.channels,
    )
    takes_bytes = description.input == "uint8"
    model.reshape([-1, side, side, channels] if takes_bytes else [-1, channels, side, side])
    model.inputs[0].set_names({"images"})
    for output, name in zip(model.outputs, (description.output, "features"), strict=False):
        output.set_names({name})
    if description.precision == "int8":
        model = quantized(model, order.calibration_batches())
    model.set_rt_info(description.to_json(), METADATA_KEY)
    save(model, path, in_half=description.precision == "f16")


def save(model: Any, path: Path, *, in_half: bool) -> None:
    """Writes a network of OpenVINO, with weights in float16 or as they are; raises StorageError."""
    try:
        require("openvino", extra="export").save_model(model, path, compress_to_fp16=in_half)
    except RuntimeError as error:  # all that its writer says is "iostream error"
        raise StorageError(f"OpenVINO could not write {path.name} ({error}); free space, then run it again.") from error


def quantized(model: Any, calibration: Sequence[npt.NDArray[Any]]) -> Any:
    """A network of OpenVINO in int8, with the preset of NNCF that leaves activations asymmetric.

    Args:
        model: An ``openvino.Model``.
        calibration: Inputs, from which the ranges of all maps are taken.
    """
    nncf = require("nncf", extra="export")
    with redirect_stdout(StringIO()):
        return nncf.quantize(
            model, nncf.Dataset(calibration), preset=nncf.QuantizationPreset.MIXED, subset_size=len(calibration)
        )
