"""A network of OpenVINO: .xml, with its weights in a .bin beside it. Loads no torch."""

import os
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.artefact import Array, Artefact
from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.errors import ArtefactError, require

__all__ = ["OpenVinoArtefact", "open_file"]


class OpenVinoArtefact(Artefact):
    """Each thread that calls has a request of its own; the requests take turns at the processor."""

    kind = "openvino"

    def __init__(self, path: Path, description: Description, compiled: Any, threads: int | None) -> None:
        super().__init__(path, description, f"openvino {version('openvino')}")
        self.compiled, self.threads = compiled, threads
        self.of_this_thread = threading.local()

    def copy(self) -> "OpenVinoArtefact":
        """The file, compiled again."""
        return open_file(self.path, self.threads)

    def _run(self, x: npt.NDArray[Any]) -> tuple[Array, ...]:
        if not hasattr(self.of_this_thread, "request"):
            self.of_this_thread.request = self.compiled.create_infer_request()
        outputs = self.of_this_thread.request.infer({0: np.ascontiguousarray(x)}, share_inputs=True)
        return tuple(np.asarray(output) for output in outputs.values())


def open_file(path: Path, threads: int | None) -> OpenVinoArtefact:
    """As ``open_artefact``."""
    if not path.with_suffix(".bin").is_file():
        raise ArtefactError(f"its weights, {path.with_suffix('.bin').name}, are not beside it; the two go together.")
    openvino = require("openvino", extra="export")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
        "INFERENCE_PRECISION_HINT": "f32",  # it would choose bf16 by itself where the processor has it
    }
    core = openvino.Core()
    try:
        model = core.read_model(path)
        text = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        description = Description.from_metadata({} if text is None else {METADATA_KEY: text})
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ArtefactError(f"OpenVINO refuses it ({reason}); export it again.") from error
    return OpenVinoArtefact(path, description, compiled, threads)
