"""The table of file formats and the runtimes that open them."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ghostnets.artefacts.formats import FORMATS
from ghostnets.artefacts.model import Model
from ghostnets.errors import ArtefactError, ConfigurationError
from ghostnets.files import complete_interrupted, find_checkpoint

__all__ = ["SUFFIXES", "open_model"]

SUFFIXES = {Path(f"x{entry.suffix}").suffix: entry.module for entry in FORMATS.values()} | {
    ".safetensors": "checkpoint"
}
"""Suffix of a file to the module whose ``open_file`` opens it; each module imports only its own runtime."""


def open_model(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str = "cpu",
    precision: str | None = None,
) -> Model:
    """Open a network in a file with the runtime that belongs to its suffix.

    ======================  ==========================================================  ==============
    ``.engine``             the engine of this package                                  needs no torch
    ``.onnx``               ONNX Runtime                                                needs no torch
    ``.xml``                OpenVINO; its weights are in the ``.bin`` file next to it   needs no torch
    ``.pte``                ExecuTorch
    ``.tflite``             LiteRT                                                      needs no torch
    ``.ncnn.param``         ncnn; its weights are in the ``.ncnn.bin`` file next to it  needs no torch
    ``.mnn``                MNN                                                         needs no torch
    ``.pt2``                ``torch.export``
    ``.safetensors``        a checkpoint: the engine where it is built and supports
                            the network, else torch
    ======================  ==========================================================  ==============

    Args:
        path: The file, or the folder of a training run, for its checkpoint.
        threads: Number of threads for one call; all processors of this process by default, for MNN one. For torch and
            ExecuTorch the number is a setting of the whole process.
        device: Device of a checkpoint, as in ``devices.select_device``; on any but the CPU it is run by torch.
            Exported files run on the CPU.
        precision: Precision in the engine, as for ``engine.Session``. By default an engine plan runs in its own
            precision and a checkpoint in f32. ``"auto"`` runs a plan in the fastest precision on this machine, and a
            checkpoint in f32. Files of other formats run in the precision that they were exported with.

    Raises:
        ArtefactError: The file is missing, damaged, or was not written by ``ghostnets export``.
        CheckpointError: The checkpoint cannot be read.
        EngineError: The engine was not built, or the plan is damaged.
        ConfigurationError: ``threads`` is below 1, or there is no such device or precision for the file.
        MissingExtraError: The runtime is not installed.
    """
    path = find_checkpoint(path)
    if path.is_dir():
        raise ArtefactError(f"{path} is a folder without best.safetensors; give the folder of a run, or a file.")
    if not path.suffix and not path.exists():
        raise ArtefactError(
            f"there is no run {path}; give the folder of a run, a checkpoint, or an exported file (downloaded weights"
            " of a network become a checkpoint by ghostnets import FILE --model NAME --out FILE.safetensors)."
        )
    if path.suffix not in SUFFIXES:
        raise ArtefactError(f"{path} has no suffix of a known format; known suffixes are {', '.join(SUFFIXES)}.")
    if not path.is_file():
        complete_interrupted(path)  # an export that was killed while it moved its files
    if not path.is_file():
        command = "train" if path.suffix == ".safetensors" else "export"
        raise ArtefactError(f"there is no file {path}; ghostnets {command} writes one.")
    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads is {threads}; it must be at least 1.")
    options: dict[str, str] = {}
    if device != "cpu" and not (device == "auto" and path.suffix != ".safetensors"):
        if path.suffix != ".safetensors":
            raise ConfigurationError(
                f"{path} is an exported file, which runs on the CPU, not on {device}; omit --device, or use the"
                " checkpoint that it was exported from."
            )
        options["device"] = device
    if path.suffix in (".engine", ".safetensors"):
        options |= {} if precision is None else {"precision": precision}
    elif precision not in (None, "auto"):
        raise ConfigurationError(f"{path} has the precision that it was exported with; omit the precision {precision}.")
    open_file: Callable[..., Model]
    open_file = import_module(f"ghostnets.artefacts.{SUFFIXES[path.suffix]}").open_file
    try:
        return open_file(path, threads, **options)
    except ArtefactError as error:
        if str(path) in str(error):
            raise
        raise ArtefactError(f"{path} cannot be used: {error}") from error
