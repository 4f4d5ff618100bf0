"""Engine plans. Runs without torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ghostnets import __version__, engine
from ghostnets.artefacts.description import Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.cores import usable_cores
from ghostnets.errors import ArtefactError

__all__ = ["EngineModel", "note_of", "open_file", "split_outputs"]


class EngineModel(Model):
    """A plan in the engine. Calls from several threads are serialized, as in ``engine.Session``."""

    def __init__(self, path: Path, description: Description, session: engine.Session) -> None:
        described = replace(description, precision=session.precision)  # of a file in "auto", the one that was chosen
        super().__init__(path, described, f"ghostnets engine {__version__} {session.isa}")
        self.note = note_of(session)
        self.session = session

    def copy(self) -> "EngineModel":
        """Return a model with as many threads of its own that shares the weights in memory."""
        return EngineModel(self.path, self.description, self.session.copy(threads=self.session.threads))

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        outputs = self.session(x)
        if not isinstance(outputs, np.ndarray):  # maps
            return tuple(outputs)
        return split_outputs(outputs, self.description) if self.description.has_features else (outputs,)


def split_outputs(outputs: Array, description: Description) -> tuple[Array, Array]:
    """Split the output ``features+logits`` of a session into logits and features."""
    start = outputs.shape[1] - len(description.class_names)
    return outputs[:, start:], outputs[:, :start]


def note_of(session: engine.Session) -> str:
    """Return why a session has its precision, if it was chosen by measurement."""
    return str(session.choice) if session.choice is not None and session.choice.milliseconds else ""


def open_file(path: Path, threads: int | None, precision: str | None = None) -> EngineModel:
    """Open an engine plan (see ``open_model``)."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"it is damaged ({error}).") from error
    description = Description.from_metadata(metadata)
    size = description.preprocessing.image_size
    session = engine.load(path, threads=threads or usable_cores(), precision=precision, image_size=size)
    return EngineModel(path, description, session)
