"""A plan of the engine. Loads no torch."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ghostnets import __version__, engine
from ghostnets.artefacts.artefact import Array, Artefact
from ghostnets.artefacts.description import Description
from ghostnets.errors import ArtefactError

__all__ = ["EngineArtefact", "open_file"]


class EngineArtefact(Artefact):
    """Calls from several threads take turns (``engine.Session``)."""

    kind = "engine"

    def __init__(self, path: Path, description: Description, session: engine.Session) -> None:
        super().__init__(path, description, f"ghostnets engine {__version__} {session.isa}")
        self.session = session

    def copy(self) -> "EngineArtefact":
        """On the same weights in memory, with as many threads."""
        return EngineArtefact(self.path, self.description, self.session.copy(threads=self.session.threads))

    def _run(self, x: npt.NDArray[Any]) -> tuple[Array, ...]:
        logits = self.session(x)
        assert isinstance(logits, np.ndarray)  # only a plan of a backbone gives a list, and none is exported
        return (logits,)


def open_file(path: Path, threads: int | None) -> EngineArtefact:
    """As ``open_artefact``."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"it is damaged ({error}).") from error
    description = Description.from_metadata(metadata)
    session = engine.load(path, threads=threads or len(os.sched_getaffinity(0)))
    return EngineArtefact(path, description, session)
