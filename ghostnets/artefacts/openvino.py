"""OpenVINO networks: an .xml file, with its weights in a .bin file next to it. Runs without torch."""

import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.cores import usable_cores
from ghostnets.errors import ArtefactError, require

__all__ = ["OpenVinoModel", "open_file"]


class OpenVinoModel(Model):
    """An OpenVINO network. Each calling thread has its own inference request; OpenVINO serializes them."""

    def __init__(self, path: Path, description: Description, compiled: Any, threads: int | None) -> None:
        super().__init__(path, description, f"openvino {version('openvino')}")
        self.compiled, self.threads = compiled, threads
        self.thread_local = threading.local()

    def copy(self) -> "OpenVinoModel":
        """Compile the file again, with the same number of threads."""
        return open_file(self.path, self.threads)

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        if not hasattr(self.thread_local, "request"):
            self.thread_local.request = self.compiled.create_infer_request()
        outputs = self.thread_local.request.infer({0: np.ascontiguousarray(x)}, share_inputs=True)
        return tuple(np.asarray(output) for output in outputs.values())


def open_file(path: Path, threads: int | None) -> OpenVinoModel:
    """Open an OpenVINO network (see ``open_model``)."""
    if not path.with_suffix(".bin").is_file():
        raise ArtefactError(
            f"its weights, {path.with_suffix('.bin').name}, are not next to it; keep the two files together."
        )
    openvino = require("openvino", extra="openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
        "INFERENCE_PRECISION_HINT": "f32",  # the default is bf16 where the processor has it
    }
    core = openvino.Core()
    try:
        model = core.read_model(path)
        text = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        description = Description.from_metadata({} if text is None else {METADATA_KEY: text})
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ArtefactError(f"OpenVINO cannot load it ({reason}); export it again.") from error
    return OpenVinoModel(path, description, compiled, threads)
