"""An ONNX file in ONNX Runtime. Loads no torch."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ghostnets.artefacts.artefact import Array, Artefact
from ghostnets.artefacts.description import Description
from ghostnets.errors import ArtefactError, require

__all__ = ["OnnxArtefact", "open_file"]


class OnnxArtefact(Artefact):
    """Calls from several threads run side by side, sharing the threads of the session."""

    kind = "onnx"

    def __init__(self, path: Path, description: Description, session: Any) -> None:
        super().__init__(path, description, f"onnxruntime {version('onnxruntime')}")
        self.session = session
        self.input_name = session.get_inputs()[0].name

    def _run(self, x: npt.NDArray[Any]) -> tuple[Array, ...]:
        return tuple(self.session.run(None, {self.input_name: x}))


def open_file(path: Path, threads: int | None) -> OnnxArtefact:
    """As ``open_artefact``."""
    ort = require("onnxruntime", extra="export")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of ONNX Runtime's own classes, which share no other base
        raise ArtefactError(f"ONNX Runtime refuses it ({str(error).splitlines()[0]}); export it again.") from error
    return OnnxArtefact(path, Description.from_metadata(session.get_modelmeta().custom_metadata_map), session)
