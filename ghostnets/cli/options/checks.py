"""Checks that several commands share; they need neither torch nor the network."""

import os
from collections.abc import Iterable
from pathlib import Path

from ghostnets.artefacts import FORMATS
from ghostnets.data import EMBEDDED, DataSpec
from ghostnets.errors import CheckpointError, ConfigurationError, DataError, UnknownNameError, require_installed
from ghostnets.files import find_checkpoint
from ghostnets.models.names import ALIASES, DETECTOR_NAMES, MODEL_NAMES, SEGMENTER_NAMES, resolve_name

__all__ = [
    "check_at_least",
    "check_bom",
    "check_checkpoint",
    "check_choices",
    "check_data",
    "check_folder",
    "check_network_file",
    "check_outside",
    "check_source",
    "check_suffix",
    "check_table_suffix",
    "check_threshold_option",
    "find_network",
]

FOREIGN = ("timm:", "torchvision:")  # networks of these libraries
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
TABLES = {".csv": None, ".jsonl": None, ".parquet": "pyarrow"}  # suffix -> library that writes it


def check_at_least(option: str, value: int | None, minimum: int) -> None:
    """Raise ConfigurationError if a number is too small; None passes."""
    if value is not None and value < minimum:
        raise ConfigurationError(f"{option} is {value}; it must be at least {minimum}.")


def check_choices(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownNameError, with close matches, for a name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)


def check_suffix(option: str, path: Path | None, suffixes: Iterable[str]) -> None:
    """Raise ConfigurationError if an output file has a suffix that cannot be written; None passes."""
    suffixes = list(suffixes)
    if path is not None and path.suffix.lower() not in suffixes:
        raise ConfigurationError(f"{option} is {path}; it must end in {' or '.join(suffixes)}.")


def check_source(network: str, source: str | Path, weights: Path | None) -> None:
    """Raise an error unless a network that is compressed has weights: its own, or a file for that of a library."""
    if isinstance(source, str) and ":" not in source:
        raise ConfigurationError(
            f"{network} is a network without weights; pass a checkpoint of it, as ghostnets train and import write."
        )
    if isinstance(source, str) != (weights is not None):
        raise ConfigurationError(
            f"{network} needs --weights FILE, its state dict."
            if weights is None
            else f"{network} is a checkpoint with weights of its own; leave out --weights."
        )
    if weights is not None and not weights.is_file():
        raise CheckpointError(f"there is no file {weights}; pass a state dict of {network}.")


def check_table_suffix(option: str, path: Path | None, *, bom: bool = False) -> None:
    """As ``check_suffix`` for a table of predictions, whose library must be installed.

    Raises:
        ConfigurationError: The suffix is unknown, or has no byte order mark.
        MissingExtraError: The library is not installed.
    """
    check_suffix(option, path, TABLES)
    check_bom(path, bom=bom)
    if path is not None and (library := TABLES[path.suffix.lower()]):
        require_installed(library, extra="parquet")


def check_bom(path: Path | None, *, bom: bool) -> None:
    """Raise ConfigurationError for a byte order mark in a file that is no ``.csv``, or without a file."""
    if bom and (path is None or path.suffix.lower() != ".csv"):
        raise ConfigurationError("--bom is for a .csv file; add --out FILE.csv, or omit it.")


def check_data(data: str) -> None:
    """Raise DataError if images are given as a folder, table or archive that does not exist."""
    place = Path(DataSpec(data).data)
    if data != EMBEDDED and "://" not in data and not place.exists():
        raise DataError(f"there is no folder {data}; pass the path of a folder with one subfolder per class.")


def check_outside(option: str, folder: Path, images: Iterable[str]) -> None:
    """Raise ConfigurationError if images would be written into a folder that is read for images."""
    for argument in images:
        if Path(argument).is_dir() and folder.resolve().is_relative_to(Path(argument).resolve()):
            raise ConfigurationError(
                f"{option} {folder} is inside {argument}, whose images are read; choose a folder outside."
            )


def check_folder(option: str, folder: Path | None) -> None:
    """Raise ConfigurationError if a folder for results can certainly not be made or written; None passes."""
    if folder is None:
        return
    place = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not place.is_dir():
        raise ConfigurationError(f"{option} is {folder}, and {place} is not a folder; choose another place.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{option} is {folder}, and {place} cannot be written; choose another place.")


def check_checkpoint(path: Path) -> None:
    """Raise CheckpointError if a path is certainly no checkpoint of this package."""
    if not path.exists() and (path.parent / "config.json").is_file():
        raise CheckpointError(f"the run {path.parent} has no {path.name} yet; it is written after the first epoch.")
    if not path.exists():
        detail = ": the link is broken" if path.is_symlink() else ""
        raise CheckpointError(f"there is no checkpoint {path}{detail}; pass the folder of a run, or a file such as"
                              " runs/NAME/best.safetensors.")  # fmt: skip
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder without best.safetensors; pass the folder of a run, or a file.")
    if path.suffix in {each.suffix for each in FORMATS.values()}:
        raise CheckpointError(
            f"{path} is an exported file, and this command needs a checkpoint: the best.safetensors that it was"
            " exported from. ghostnets predict and serve run exported files."
        )


def check_network_file(path: Path) -> None:
    """Raise CheckpointError if a path is certainly neither a checkpoint nor an exported file."""
    if path.is_file() and path.suffix in {each.suffix for each in FORMATS.values()}:
        return
    check_checkpoint(path)


def check_threshold_option(threshold: float | None) -> None:
    """Raise ConfigurationError unless a threshold is a probability above 0, or None."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigurationError(f"--threshold is {threshold}; it must be a probability above 0 and at most 1.")


def find_network(network: str, *, foreign: bool = False, any_task: bool = False) -> str | Path:
    """The network that an argument MODEL|CHECKPOINT names.

    Args:
        network: Name of a network, path of a checkpoint, or folder of a run.
        foreign: Accept ``timm:NAME`` and ``torchvision:NAME``.
        any_task: Accept names of detectors and segmentation networks.

    Returns:
        Name of the network, or path of the checkpoint.

    Raises:
        CheckpointError: The path is certainly no checkpoint.
        UnknownNameError: The network is unknown.
        MissingExtraError: The library of a foreign network is not installed.
    """
    if foreign and network.startswith(FOREIGN):
        require_installed(network.split(":")[0], extra="bench")
        return network
    path = find_checkpoint(network)
    is_name = network in MODEL_NAMES or network in ALIASES
    if not is_name and (path.exists() or path.suffix in WEIGHTS or "/" in network):
        check_checkpoint(path)
        return path
    if not any_task or network not in DETECTOR_NAMES | SEGMENTER_NAMES:
        resolve_name(network)
    return network
