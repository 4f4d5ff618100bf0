"""Opening of a file with the runtime that belongs to its suffix."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ghostnets.artefacts.formats import FORMATS
from ghostnets.artefacts.model import Model
from ghostnets.errors import ArtefactError, ConfigurationError
from ghostnets.files import complete_interrupted

__all__ = ["SUFFIXES", "open_model"]

# Suffix -> module of this package whose function ``open_file`` opens it. Each module imports only its own runtime.
SUFFIXES = {**{known.suffix: known.module for known in FORMATS.values()}, ".safetensors": "checkpoint"}


def open_model(path: str | os.PathLike[str], *, threads: int | None = None) -> Model:
    """Open a network in a file with the runtime that belongs to its suffix.

    ======================  ==========================================================  ==============
    ``.engine``             the engine of this package                                  loads no torch
    ``.onnx``               ONNX Runtime                                                loads no torch
    ``.xml``                OpenVINO; its weights are in the ``.bin`` file next to it   loads no torch
    ``.pte``                ExecuTorch
    ``.tflite``             LiteRT                                                      loads no torch
    ``.pt2``                ``torch.export``
    ``.safetensors``        a checkpoint: the engine where it is built and supports
                            the network, else torch
    ======================  ==========================================================  ==============

    Args:
        path: The file.
        threads: Number of threads for one call; all processors of this process by default. For torch and ExecuTorch
            the number is a setting of the whole process.

    Raises:
        ArtefactError: The file is missing, damaged, or was not written by ``ghostnets export``.
        CheckpointError: The checkpoint cannot be read.
        EngineError: The engine was not built, or the plan is damaged.
        ConfigurationError: ``threads`` is below 1.
        MissingExtraError: The runtime is not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ArtefactError(f"{path} has no suffix of a known format; known are {', '.join(SUFFIXES)}.")
    if not path.is_file():
        complete_interrupted(path)  # an export that was killed while it moved its files
    if not path.is_file():
        raise ArtefactError(f"there is no file {path}; ghostnets export writes one.")
    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads is {threads}; it must be at least 1.")
    open_file: Callable[[Path, int | None], Model]
    open_file = import_module(f"ghostnets.artefacts.{SUFFIXES[path.suffix]}").open_file
    try:
        return open_file(path, threads)
    except ArtefactError as error:
        if str(path) in str(error):
            raise
        raise ArtefactError(f"{path} cannot be used: {error}") from error
