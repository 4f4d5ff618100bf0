"""Export to OpenVINO (.xml and .bin); f16 compresses the weights, int8 is NNCF's static quantization."""

import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import StorageError, require
from ghostnets.export.deployed import ExportJob, trace
from ghostnets.export.onnx import write as write_onnx

__all__ = ["quantize_openvino", "save", "write"]


def write(job: ExportJob, path: Path) -> None:
    """Write ``.xml`` and ``.bin``; see ``FileFormat``."""
    description = job.description
    if description.precision == "int8" and job.checkpoint.float_layers:
        model = _from_onnx(job, path)  # NNCF does not know layers by their names in the network; ONNX does
    else:
        model = _convert(job)
        if description.precision == "int8":
            model = quantize_openvino(model, job.calibration_batches())
    model.set_rt_info(description.to_json(), METADATA_KEY)
    save(model, path, compress_to_f16=description.precision == "f16")


def _convert(job: ExportJob) -> Any:
    """Return the network as ``openvino.Model`` in float32, with the names and sizes of its description."""
    description = job.description
    program = trace(job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the converter's own internals
        model = require("openvino", extra="export").convert_model(program)
    side, channels = (
        -1 if description.any_size else description.preprocessing.image_size,
        description.preprocessing.channels,
    )
    takes_bytes = description.input == "uint8"
    batch = description.batch or -1
    model.reshape([batch, side, side, channels] if takes_bytes else [batch, channels, side, side])
    model.inputs[0].set_names({"images"})
    for output, name in zip(model.outputs, (description.output_name, "features"), strict=False):
        output.set_names({name})
    return model


def _from_onnx(job: ExportJob, path: Path) -> Any:
    """Return the int8 network of the ONNX file, quantised by ONNX Runtime."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(job, file)
        return require("openvino", extra="export").convert_model(file)


def save(model: Any, path: Path, *, compress_to_f16: bool) -> None:
    """Save an ``openvino.Model``, with weights compressed to float16 if ``compress_to_f16``; raises StorageError."""
    try:
        require("openvino", extra="export").save_model(model, path, compress_to_fp16=compress_to_f16)
    except RuntimeError as error:  # its message is only "iostream error"
        raise StorageError(
            f"OpenVINO could not write {path.name} ({error}); free disk space and export again."
        ) from error


def quantize_openvino(model: Any, calibration: Sequence[npt.NDArray[Any]]) -> Any:
    """Quantize an ``openvino.Model`` to static int8 with NNCF's mixed preset: activations are asymmetric.

    Args:
        model: ``openvino.Model`` in float32.
        calibration: Input batches that determine the activation ranges.
    """
    nncf = require("nncf", extra="export")
    with redirect_stdout(StringIO()):
        return nncf.quantize(
            model, nncf.Dataset(calibration), preset=nncf.QuantizationPreset.MIXED, subset_size=len(calibration)
        )
