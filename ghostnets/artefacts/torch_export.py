"""``torch.export`` programs, run by eager torch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.errors import ArtefactError

__all__ = ["TorchExportModel", "open_file"]


class TorchExportModel(Model):
    """A ``torch.export`` program. Calls from several threads run concurrently."""

    def __init__(self, path: Path, description: Description, program: torch.nn.Module) -> None:
        super().__init__(path, description, f"torch {torch.__version__}")
        self.program = program

    @torch.inference_mode()
    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        outputs = self.program(torch.from_numpy(np.ascontiguousarray(x)))
        return tuple(output.numpy() for output in outputs)


def open_file(path: Path, threads: int | None) -> TorchExportModel:
    """Open a ``torch.export`` program (see ``open_model``)."""
    files = {METADATA_KEY: ""}
    try:
        program = torch.export.load(path, extra_files=files).module()
    except Exception as error:  # the zip archive, JSON and pickles inside raise errors of many classes
        raise ArtefactError(f"torch.export cannot load it ({str(error).splitlines()[0]}); export it again.") from error
    description = Description.from_metadata({name: text for name, text in files.items() if text})
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchExportModel(path, description, program)
