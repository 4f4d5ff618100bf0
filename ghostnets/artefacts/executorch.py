"""ExecuTorch programs."""

import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.errors import ArtefactError, require

__all__ = ["ExecuTorchModel", "open_file"]


class ExecuTorchModel(Model):
    """An ExecuTorch program. Its memory is planned for one image per run; calls from several threads are serialized."""

    def __init__(self, path: Path, description: Description, program: Any, forward: Any) -> None:
        super().__init__(path, description, f"executorch {version('executorch')}")
        self.program, self.forward = program, forward  # the program owns the memory of the method
        self.lock = threading.Lock()

    def copy(self) -> "ExecuTorchModel":
        """Load the file again; all models share the threads of the process."""
        return open_file(self.path, None)

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        torch = require("torch", extra="executorch")
        with self.lock:
            outputs = self.forward.execute([torch.from_numpy(x)])
            return tuple(output.numpy().copy() for output in outputs)  # the next run overwrites them


def open_file(path: Path, threads: int | None) -> ExecuTorchModel:
    """Open an ExecuTorch program (see ``open_model``)."""
    runtime = require("executorch.runtime", extra="executorch").Runtime.get()
    if threads is not None:
        require("executorch.extension.pybindings.portable_lib", extra="executorch")._unsafe_reset_threadpool(threads)
    try:
        program = runtime.load_program(path)
        names = program.method_names
        text = program.load_method(METADATA_KEY).execute([])[0] if METADATA_KEY in names else None
        forward = program.load_method("forward")
    except RuntimeError as error:
        raise ArtefactError(f"ExecuTorch cannot load it ({str(error).splitlines()[0]}); export it again.") from error
    description = Description.from_metadata({} if text is None else {METADATA_KEY: str(text)})
    return ExecuTorchModel(path, description, program, forward)
