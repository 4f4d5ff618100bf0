"""Reading checkpoints: the project's own, and state dicts of other sources. Nothing in a file is ever executed."""

import json
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ghostnets.checkpoints.save import FORMAT_VERSION, METADATA_KEY, Checkpoint
from ghostnets.checkpoints.sources import detect_source, drop_counters, fold_printed_port, rename_v3
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import PrintedGhostNet, create_model

__all__ = ["load_checkpoint", "read_checkpoint", "read_tensors"]

SOURCES = ("auto", "canonical", "printed_port")


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint of this project (``best.safetensors`` of a run).

    Raises:
        CheckpointError: The file is missing, is no safetensors file, is truncated, was not written by ghostnets, or
            its weights do not fit the architecture that it names.
    """
    path = Path(path)
    tensors, metadata = _read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} holds tensors but no description by ghostnets, so its architecture and classes are unknown;"
            " build the network yourself and use ghostnets.load_checkpoint(model, path)."
        )
    try:
        description = json.loads(metadata[METADATA_KEY])
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has checkpoint format {version}, this ghostnets reads format {FORMAT_VERSION};"
                " install the ghostnets version that wrote it."
            )
        checkpoint = Checkpoint(
            architecture=description["architecture"],
            arguments=dict(description["arguments"]),
            state_dict=tensors,
            class_names=tuple(map(str, description["class_names"])),
            preprocessing=dict(description["preprocessing"]),
            training=dict(description.get("training", {})),
        )
        with torch.device("meta"):
            model = create_model(checkpoint.architecture, **checkpoint.arguments)
    except (json.JSONDecodeError, KeyError, TypeError, ConfigurationError) as error:
        raise CheckpointError(
            f"{path} has a description that cannot be used ({error}); it is damaged or of another version."
        ) from error
    _check_fit(model, tensors, path)
    classes = checkpoint.arguments.get("num_classes")
    if classes != len(checkpoint.class_names):
        raise CheckpointError(
            f"{path} has {classes} outputs but {len(checkpoint.class_names)} class names; it is damaged."
        )
    return checkpoint


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, source: str = "auto") -> None:
    """Loads the weights of a file into a network, strictly: every tensor of both sides must find its partner.

    Args:
        model: A network of ``create_model``; changed in place.
        path: A ``.safetensors`` file, or a state dict written by ``torch.save``.
        source: ``"canonical"`` (official implementation, timm, this project; V1, V2, and V3 in either form),
            ``"printed_port"``, or ``"auto"`` to tell by the names. Weights of the printed port are folded when the
            network is a canonical one.

    Raises:
        CheckpointError: The file cannot be read, or tensors are missing, unexpected or of another shape; all are
            listed.
        ConfigurationError: There is no such source.
    """
    if source not in SOURCES:
        raise ConfigurationError(f"source is {source!r}; it must be one of {', '.join(SOURCES)}.")
    state_dict = read_tensors(path)
    if source == "auto":
        source = detect_source(frozenset(state_dict))
    if source == "printed_port" and not isinstance(model, PrintedGhostNet):
        squeezed = {k: v.shape[0] for k, v in model.state_dict().items() if k.endswith("se.conv_reduce.weight")}
        state_dict = fold_printed_port(state_dict, squeezed_channels=squeezed)
    elif source == "canonical":
        state_dict = rename_v3(drop_counters(state_dict))
    _check_fit(model, state_dict, path)
    model.load_state_dict(state_dict)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Names and tensors of a ``.safetensors`` file or of a state dict written by ``torch.save``.

    A pickled file is read with ``weights_only=True``: one that would run code, or holds anything but tensors and plain
    containers, is refused.

    Raises:
        CheckpointError: The file is missing, damaged or refused, or holds no state dict.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)[0]
    content = load_pickled(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict (names with tensors); save model.state_dict() instead.")
    return dict(content)


def load_pickled(path: Path) -> Any:
    """``torch.load`` that admits tensors and plain containers only.

    Raises:
        CheckpointError: The file is missing, damaged or refused.
    """
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # torch then reads it or refuses it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged, or a pickle that holds more than tensors, which could run code when"
            " opened; ask its author for a safetensors file."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint ({_first_line(error)}).") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file, or a damaged one ({_first_line(error)});"
            " expected is a file such as runs/NAME/best.safetensors."
        ) from error


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; expected is a file such as runs/NAME/best.safetensors.")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; expected is a file such as runs/NAME/best.safetensors.")


def _check_fit(model: nn.Module, state_dict: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    expected = model.state_dict()
    problems = {
        "missing": sorted(expected.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - expected.keys()),
        "of another shape": [
            f"{name} (file {tuple(state_dict[name].shape)}, network {tuple(tensor.shape)})"
            for name, tensor in expected.items()
            if name in state_dict and state_dict[name].shape != tensor.shape
        ],
    }
    if found := [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in problems.items() if names]:
        raise CheckpointError(
            f"{path} does not fit the network {type(model).__name__}: {'; '.join(found)};"
            " build the network with the arguments the file was made with."
        )


def _shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
