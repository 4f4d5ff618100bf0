"""Which runtime opens which file."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ghostnets.artefacts.artefact import Artefact
from ghostnets.errors import ArtefactError, ConfigurationError

__all__ = ["SUFFIXES", "open_artefact"]

# Suffix -> file of this room, whose function ``open_file`` opens it. Each imports its runtime alone.
SUFFIXES = {
    ".engine": "engine_plan",
    ".onnx": "onnx",
    ".xml": "openvino",
    ".pte": "executorch",
    ".tflite": "litert",
    ".pt2": "torch_export",
    ".safetensors": "checkpoint",
}


def open_artefact(path: str | os.PathLike[str], *, threads: int | None = None) -> Artefact:
    """Opens a shipped network; the suffix tells the runtime.

    ======================  ==========================================================  ==============
    ``.engine``             the engine of this package                                  loads no torch
    ``.onnx``               ONNX Runtime                                                loads no torch
    ``.xml``                OpenVINO; the weights stand beside it, in ``.bin``          loads no torch
    ``.pte``                ExecuTorch
    ``.tflite``             LiteRT                                                      loads no torch
    ``.pt2``                ``torch.export``
    ``.safetensors``        a checkpoint: the engine, where it is built and knows the
                            network, or torch
    ======================  ==========================================================  ==============

    Args:
        path: The file.
        threads: Threads that share the work of one call; all processors of this process by default. torch and
            ExecuTorch have one setting for the whole process, which this changes where it is given.

    Raises:
        ArtefactError: The file is missing, damaged, or was not written by ``ghostnets export``.
        CheckpointError: As ``ghostnets.checkpoints.read_checkpoint``.
        EngineError: The engine was not built, or the plan is damaged.
        ConfigurationError: ``threads`` is below 1.
        MissingExtraError: The runtime is not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ArtefactError(f"{path} is of no kind that can be opened here; known are {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ArtefactError(f"there is no file {path}; ghostnets export writes one.")
    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads is {threads}; it must be at least 1.")
    open_file: Callable[[Path, int | None], Artefact]
    open_file = import_module(f"ghostnets.artefacts.{SUFFIXES[path.suffix]}").open_file
    try:
        return open_file(path, threads)
    except ArtefactError as error:
        if str(path) in str(error):
            raise
        raise ArtefactError(f"{path} cannot be used: {error}") from error
