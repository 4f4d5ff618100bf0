"""Loading checkpoints: the project's own, and state dicts of other sources. Nothing in a file is ever executed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.checkpoints.fetch import HUB_PREFIX, download
from ghostnets.checkpoints.read import WeightsFile, check_numbers, read_weights
from ghostnets.checkpoints.save import FORMAT_VERSION, METADATA_KEY, Checkpoint
from ghostnets.checkpoints.sources import (
    SOURCE_ALIASES,
    SOURCES,
    detect_source,
    drop_counters,
    fold_d_li14,
    fold_paddleclas,
    rename_kecam,
    rename_v3,
)
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import DLi14GhostNet, Network, create_model, resolve_name
from ghostnets.preprocessing import Preprocessing

__all__ = ["load_checkpoint", "load_weights", "network_arguments", "parse_checkpoint", "read_checkpoint"]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint of this project (``best.safetensors`` of a run).

    Raises:
        CheckpointError: The file is missing, is no safetensors file, is truncated, was not written by ghostnets, holds
            numbers that are not finite, or its weights do not fit the architecture that it names.
    """
    return parse_checkpoint(read_weights(path))


def load_checkpoint(
    model: nn.Module | str,
    location: str | os.PathLike[str],
    *,
    source: str = "auto",
    replace_head: bool = False,
) -> nn.Module:
    """Loads the weights of a file into a network, strictly: every tensor of both sides must find its partner.

    >>> model = load_checkpoint("ghostnet_130", "GhostNet_x1_3_pretrained.pdparams")  # doctest: +SKIP
    >>> model = load_checkpoint("ghostnet_100", "hf://timm/ghostnet_100.in1k")  # doctest: +SKIP

    Args:
        model: A network of ``create_model``, changed in place; or a name of the registry, for a new network in
            evaluation mode with as many classes as the file has, or with all the arguments that it tells.
        location: A file: .safetensors, .pth and the like by ``torch.save``, .pdparams, .h5. Or one of the Hugging Face
            hub, which is fetched unless it is in the cache: ``hf://OWNER/REPOSITORY``, where the file is
            ``model.safetensors``, or ``hf://OWNER/REPOSITORY/FILE``.
        source: Whose names the file uses: ``"canonical"`` (this project for every network, the official
            implementations, timm), ``"d_li14"``, ``"paddleclas"``, ``"kecam"`` (keras_cv_attention_models), or
            ``"auto"`` to tell by the names. The last three are converted when the network is a canonical one, so that
            its outputs are those of the original.
        replace_head: Leave the classifier as it is, for other classes than those of the file; all else is loaded.

    Returns:
        The network.

    Raises:
        CheckpointError: The file cannot be had or read, or tensors are missing, unexpected, of another shape or not
            finite; all are listed.
        ConfigurationError: There is no such source.
        MissingExtraError: A .h5 file, and h5py is not installed.
        UnknownNameError: There is no such network.
    """
    source = SOURCE_ALIASES.get(source, source)
    if source not in ("auto", *SOURCES):
        raise ConfigurationError(f"source is {source!r}; it must be one of {', '.join(('auto', *SOURCES))}.")
    is_remote = isinstance(location, str) and location.startswith(HUB_PREFIX)
    weights = read_weights(download(str(location)) if is_remote else location)
    if source == "auto":
        source = detect_source(weights.tensors)
    if isinstance(model, str):
        model = create_model(model, **network_arguments(model, weights, source=source)).eval()
    load_weights(model, weights, source=source, replace_head=replace_head)
    return model


def load_weights(model: nn.Module, weights: WeightsFile, *, source: str, replace_head: bool = False) -> None:
    """As ``load_checkpoint``, for a file that was read already and a source that is known.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape or not finite.
    """
    state_dict, expected = _converted(weights, source, model), model.state_dict()
    check_numbers(state_dict, weights.path)  # conversion can overflow, folding can divide by zero
    if replace_head and isinstance(model, Network):
        head = f"{model.classifier_name}."
        state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith(head)}
        state_dict |= {key: tensor for key, tensor in expected.items() if key.startswith(head)}
    _check_fit(model, state_dict, weights.path)
    model.load_state_dict(state_dict)


def network_arguments(name: str, weights: WeightsFile, *, source: str) -> dict[str, Any]:
    """Arguments of ``create_model(name, ...)`` with which the network fits the file.

    They are those that the file tells, if this project wrote it, or the number of classes.

    Raises:
        CheckpointError: It is a checkpoint of another network, or the number of classes cannot be told.
        UnknownNameError: There is no such network.
    """
    if METADATA_KEY in weights.metadata:
        checkpoint = parse_checkpoint(weights)
        if checkpoint.architecture != resolve_name(name):
            raise CheckpointError(
                f"{weights.path} is a checkpoint of {checkpoint.architecture}, not of {name}; ask for that network."
            )
        return checkpoint.arguments
    with torch.device("meta"):  # names and shapes are enough
        network = create_model(name)
    assert isinstance(network, Network)
    key = f"{network.classifier_name}.weight"
    classifier = _converted(weights, source, network).get(key)
    if classifier is None or classifier.ndim != 2 or not len(classifier):
        raise CheckpointError(
            f"{weights.path} has no matrix {key}, so its number of classes is unknown;"
            " expected is the state dict of a classifier."
        )
    return {"num_classes": len(classifier)}


def _converted(weights: WeightsFile, source: str, network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file under the names of the network."""
    own = network.state_dict()
    squeezed = {key: tensor.shape[0] for key, tensor in own.items() if key.endswith("se.conv_reduce.weight")}
    try:
        if source == "kecam":
            return rename_kecam(weights.tensors, names=own.keys())
        if source == "paddleclas":
            return fold_paddleclas(weights.tensors, squeezed_channels=squeezed)
        if source == "d_li14" and not isinstance(network, DLi14GhostNet):
            return fold_d_li14(weights.tensors, squeezed_channels=squeezed)
    except CheckpointError as error:
        raise CheckpointError(f"{weights.path} cannot be converted: {error}") from error
    return rename_v3(drop_counters(weights.tensors)) if source == "canonical" else weights.tensors


def parse_checkpoint(weights: WeightsFile) -> Checkpoint:
    """The checkpoint of this project in a file that was already read; raises CheckpointError as ``read_checkpoint``."""
    path = weights.path
    if METADATA_KEY not in weights.metadata:
        raise CheckpointError(
            f"{path} is no safetensors file with a description by ghostnets, so architecture and classes are unknown;"
            " build the network yourself and use ghostnets.load_checkpoint(model, path)."
        )
    try:
        description = json.loads(weights.metadata[METADATA_KEY])
        version = description["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has checkpoint format {version}, this ghostnets reads format {FORMAT_VERSION};"
                " install the ghostnets version that wrote it."
            )
        checkpoint = Checkpoint(
            architecture=resolve_name(description["architecture"]),
            arguments=dict(description["arguments"]),
            state_dict=weights.tensors,
            class_names=tuple(map(str, description["class_names"])),
            preprocessing=Preprocessing.from_dict(description["preprocessing"]),
            training=dict(description.get("training", {})),
            sha256=weights.sha256,
        )
        with torch.device("meta"):
            model = create_model(checkpoint.architecture, **checkpoint.arguments)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} has a description that cannot be used ({error}); it is damaged or of another version."
        ) from error
    _check_fit(model, weights.tensors, path)
    channels = next(model.parameters()).shape[1]
    if channels != checkpoint.preprocessing.channels:
        raise CheckpointError(
            f"{path} has a network for {channels} input channels, but preprocessing for"
            f" {checkpoint.preprocessing.channels}; it is damaged."
        )
    classes = checkpoint.arguments.get("num_classes")
    if classes != len(checkpoint.class_names):
        raise CheckpointError(
            f"{path} has {classes} outputs but {len(checkpoint.class_names)} class names; it is damaged."
        )
    return checkpoint


def _check_fit(model: nn.Module, state_dict: Mapping[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    problems = {
        "missing": sorted(expected.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - expected.keys()),
        "of another shape": [
            name for name, tensor in expected.items() if name in state_dict and state_dict[name].shape != tensor.shape
        ],
    }
    if not any(problems.values()):
        return
    head = f"{model.classifier_name}." if isinstance(model, Network) else "none"
    is_head_alone = all(name.startswith(head) for names in problems.values() for name in names)
    problems["of another shape"] = [
        f"{name} (file {tuple(state_dict[name].shape)}, network {tuple(expected[name].shape)})"
        for name in problems["of another shape"]
    ]
    found = [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in problems.items() if names]
    advice = " or pass replace_head=True to keep the network's own classifier" if is_head_alone else ""
    raise CheckpointError(
        f"{path} does not fit the network {type(model).__name__}: {'; '.join(found)};"
        f" build the network with the arguments the file was made with{advice}."
    )


def _shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
