"""A program of torch.export in eager torch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ghostnets.artefacts.artefact import Array, Artefact
from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.errors import ArtefactError

__all__ = ["TorchExportArtefact", "open_file"]


class TorchExportArtefact(Artefact):
    """Calls from several threads run side by side."""

    kind = "torch-export"

    def __init__(self, path: Path, description: Description, program: torch.nn.Module) -> None:
        super().__init__(path, description, f"torch {torch.__version__}")
        self.program = program

    @torch.inference_mode()
    def _run(self, x: npt.NDArray[Any]) -> tuple[Array, ...]:
        outputs = self.program(torch.from_numpy(np.ascontiguousarray(x)))
        return tuple(output.numpy() for output in outputs)


def open_file(path: Path, threads: int | None) -> TorchExportArtefact:
    """As ``open_artefact``."""
    files = {METADATA_KEY: ""}
    try:
        program = torch.export.load(path, extra_files=files).module()
    except Exception as error:  # zip files, JSON and pickles inside fail in ways of their own
        raise ArtefactError(f"torch.export refuses it ({str(error).splitlines()[0]}); export it again.") from error
    description = Description.from_metadata({name: text for name, text in files.items() if text})
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchExportArtefact(path, description, program)
