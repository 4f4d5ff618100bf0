"""ONNX files in ONNX Runtime. Runs without torch."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ghostnets.artefacts.description import Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.cores import usable_cores
from ghostnets.errors import ArtefactError, require

__all__ = ["OnnxModel", "open_file"]


class OnnxModel(Model):
    """An ONNX file. Calls from several threads run concurrently and share the threads of the session."""

    def __init__(self, path: Path, description: Description, session: Any) -> None:
        super().__init__(path, description, f"onnxruntime {version('onnxruntime')}")
        self.session = session
        self.input_name = session.get_inputs()[0].name

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        return tuple(self.session.run(None, {self.input_name: x}))


def open_file(path: Path, threads: int | None) -> OnnxModel:
    """Open an ONNX file (see ``open_model``)."""
    ort = require("onnxruntime", extra="onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exception classes of ONNX Runtime have no other common base
        raise ArtefactError(f"ONNX Runtime cannot load it ({str(error).splitlines()[0]}); export it again.") from error
    return OnnxModel(path, Description.from_metadata(session.get_modelmeta().custom_metadata_map), session)
