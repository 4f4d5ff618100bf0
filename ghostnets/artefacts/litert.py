"""LiteRT (TensorFlow Lite) files. Runs without torch."""

import threading
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ghostnets.artefacts.description import Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.cores import usable_cores
from ghostnets.errors import ArtefactError, require

__all__ = ["LiteRTModel", "open_file"]


class LiteRTModel(Model):
    """A LiteRT file. Its memory is planned for one image per run; calls from several threads are serialized."""

    def __init__(self, path: Path, description: Description, interpreter: Any, threads: int) -> None:
        super().__init__(path, description, f"litert {version('ai-edge-litert')}")
        self.interpreter, self.threads = interpreter, threads
        self.lock = threading.Lock()
        self.input = interpreter.get_input_details()[0]["index"]
        self.outputs = [output["index"] for output in interpreter.get_output_details()]

    def copy(self) -> "LiteRTModel":
        """Load the file again, with the same number of threads."""
        return open_file(self.path, self.threads)

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        with self.lock:
            self.interpreter.set_tensor(self.input, x)
            self.interpreter.invoke()
            return tuple(self.interpreter.get_tensor(index) for index in self.outputs)


def open_file(path: Path, threads: int | None) -> LiteRTModel:
    """Open a LiteRT file (see ``open_model``)."""
    litert = require("ai_edge_litert.interpreter", extra="litert")
    threads = threads or usable_cores()
    try:
        description = Description.from_appended(path)
        interpreter = litert.Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"LiteRT cannot load it ({str(error).splitlines()[0]}); export it again.") from error
    return LiteRTModel(path, description, interpreter, threads)
