"""Loading of this project's checkpoints and of state dicts from other sources; no file can execute code."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.checkpoints.architecture import TASKS, build_network, resolve_architecture
from ghostnets.checkpoints.fetch import HUB_PREFIX, download
from ghostnets.checkpoints.fit import adapt, check_fit, is_merged, logger, network_shapes, stem_name
from ghostnets.checkpoints.read import WeightsFile, check_numbers, read_weights
from ghostnets.checkpoints.save import FORMAT_VERSION, METADATA_KEY, Checkpoint
from ghostnets.checkpoints.sources import (
    SOURCE_ALIASES,
    SOURCES,
    convert_d_li14,
    convert_kecam,
    convert_paddleclas,
    detect_source,
    drop_counters,
    rename_v3,
)
from ghostnets.compress import reparameterize
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import Network, create_model, resolve_name
from ghostnets.preprocessing import Preprocessing

__all__ = ["load_checkpoint", "load_weights", "network_arguments", "parse_checkpoint", "read_checkpoint"]


def read_checkpoint(path: str | os.PathLike[str], *, task: str | None = "classify") -> Checkpoint:
    """Read a checkpoint of this project: ``best.safetensors`` of a run, or the folder of the run.

    Args:
        path: The file or the folder.
        task: Task of the network that is wanted: ``"classify"``, ``"detect"``, ``"segment"``, or None for any.

    Raises:
        CheckpointError: The file is missing, is not a safetensors file, is truncated, was not written by ghostnets,
            contains non-finite values, its weights do not fit its architecture, or it is a network for another task.
    """
    return parse_checkpoint(read_weights(path), task=task)


def load_checkpoint(
    model: nn.Module | str,
    location: str | os.PathLike[str],
    *,
    source: str = "auto",
    replace_head: bool = False,
    key: str | None = None,
) -> nn.Module:
    """Load the weights of a file into a network, strictly: names and shapes of all tensors must match.

    Wrappers of training code are removed, and a classifier's file fits a backbone; docs/checkpoints.md lists the
    supported cases. Choices, omissions and adaptations (such as an RGB stem for other numbers of channels) are logged.

    >>> model = load_checkpoint("ghostnet_130", "GhostNet_x1_3_pretrained.pdparams")  # doctest: +SKIP
    >>> model = load_checkpoint("ghostnet_100", "hf://timm/ghostnet_100.in1k")  # doctest: +SKIP

    Args:
        model: Network of ``create_model``, modified in place; or a name of the registry, which builds a network in
            evaluation mode with the arguments stored in the file, or else with its number of classes and of input
            channels; for a merged GhostNetV3 file, the merged network.
        location: Path of a file: .safetensors, .pth and others written by ``torch.save``, .pdparams, .h5. Or a location
            on the Hugging Face hub, downloaded unless cached: ``hf://OWNER/REPOSITORY`` (``model.safetensors``) or
            ``hf://OWNER/REPOSITORY/FILE``.
        source: Naming convention of the file: ``"canonical"`` (this project, the official implementations, timm),
            ``"d_li14"`` (d-li14/ghostnet.pytorch), ``"paddleclas"``, ``"kecam"`` (keras_cv_attention_models), or
            ``"auto"`` to detect it. The last three are converted to the canonical networks, with equal outputs.
        replace_head: Keep the network's own classifier, for classes that differ from the file's, and load the rest; of
            a backbone's file, keep everything after the backbone.
        key: Key of the state dict in the file, as in ``read_weights``: ``"model"`` for the trained weights of a file
            that has averaged ones too.

    Returns:
        The network with the loaded weights.

    Raises:
        CheckpointError: The file cannot be downloaded or read, or tensors are missing, unexpected, of another shape or
            non-finite; the message lists them.
        ConfigurationError: There is no such source.
        MissingExtraError: The file is .h5 and h5py is not installed.
        UnknownNameError: The network is unknown.
    """
    source = SOURCE_ALIASES.get(source, source)
    if source not in ("auto", *SOURCES):
        raise ConfigurationError(f"source is {source!r}; it must be one of {', '.join(('auto', *SOURCES))}.")
    is_remote = isinstance(location, str) and location.startswith(HUB_PREFIX)
    weights = read_weights(download(str(location)) if is_remote else location, key=key)
    if source == "auto":
        source = detect_source(weights.tensors)
    if isinstance(model, str):
        changes = parse_checkpoint(weights).changes if METADATA_KEY in weights.metadata else ()
        model = build_network(resolve_name(model), network_arguments(model, weights, source=source), changes).eval()
        if source == "canonical" and is_merged(model, weights.tensors):
            logger.warning("%s has merged branches, so the merged network is returned.", weights.path)
            model = reparameterize(model)
    elif METADATA_KEY in weights.metadata:
        _tell_other_stride(model, parse_checkpoint(weights, task=None), weights.path)
    load_weights(model, weights, source=source, replace_head=replace_head)
    return model


def _tell_other_stride(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Log that the stem of a network has another stride (``small_input``) than that of the checkpoint's network."""
    with torch.device("meta"):
        trained = build_network(checkpoint.architecture, checkpoint.arguments, checkpoint.changes)
    ours, theirs = map(_stem_stride, (model, trained))
    if ours != theirs:
        logger.warning(
            "%s: the stem of its network has stride %s, here it has %s (small_input), so the outputs differ.",
            path,
            theirs,
            ours,
        )


def _stem_stride(network: nn.Module) -> int | None:
    return next((int(module.stride[0]) for module in network.modules() if isinstance(module, nn.Conv2d)), None)


def load_weights(model: nn.Module, weights: WeightsFile, *, source: str, replace_head: bool = False) -> None:
    """Load the weights of a file that has been read, strictly, as ``load_checkpoint`` does.

    Args:
        model: Network, modified in place.
        weights: Content of the file.
        source: Naming convention of the file, one of ``SOURCES``.
        replace_head: Keep the network's own classifier and load the rest.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape or non-finite.
    """
    converted = _convert(weights, source, model)
    check_numbers(converted, weights.path)  # conversion can overflow, folding can divide by zero
    state_dict = adapt(model, converted, weights.path, replace_head=replace_head)
    check_fit(model, state_dict, weights.path, converted if source == "canonical" else weights.tensors)
    model.load_state_dict(state_dict)


def network_arguments(name: str, weights: WeightsFile, *, source: str) -> dict[str, Any]:
    """Arguments of ``create_model(name, ...)`` for which the network fits the file.

    These are the stored arguments if this project wrote the file, otherwise the numbers of classes (0 if the file has
    no classifier) and of input channels.

    Args:
        name: Name of the network.
        weights: Content of the file.
        source: Naming convention of the file, one of ``SOURCES``.

    Raises:
        CheckpointError: The file is a checkpoint of another network, or its classifier weight is not a matrix.
        UnknownNameError: The network is unknown.
    """
    if METADATA_KEY in weights.metadata:
        checkpoint = parse_checkpoint(weights)
        if checkpoint.architecture != resolve_name(name):
            raise CheckpointError(
                f"{weights.path} is a checkpoint of {checkpoint.architecture}, not of {name}; load it by that name."
            )
        return checkpoint.arguments
    with torch.device("meta"):  # names and shapes are enough
        network = create_model(name)
    assert isinstance(network, Network)
    converted, key = _convert(weights, source, network), f"{network.classifier_name}.weight"
    classifier = converted.get(key)
    if classifier is not None and (classifier.ndim != 2 or not len(classifier)):
        raise CheckpointError(
            f"{weights.path} has no matrix {key}, so its number of classes is unknown; pass the state dict of a"
            " classifier."
        )
    arguments = {"num_classes": 0 if classifier is None else len(classifier)}
    stem = converted.get(stem_name(network))
    if stem is not None and stem.ndim == 4 and stem.shape[1] not in (0, 3):
        arguments["in_chans"] = stem.shape[1]
    return arguments


def _convert(weights: WeightsFile, source: str, network: nn.Module) -> dict[str, Tensor]:
    """Convert the tensors of a file to the names and conventions of the network."""
    own = network_shapes(network)
    squeezed = {key: shape[0] for key, shape in own.items() if key.endswith("se.conv_reduce.weight")}
    try:
        if source == "kecam":
            return convert_kecam(weights.tensors, names=own.keys())
        if source == "paddleclas":
            return convert_paddleclas(weights.tensors, squeezed_channels=squeezed)
        if source == "d_li14" and "features.0.0.weight" not in own:
            return convert_d_li14(weights.tensors, squeezed_channels=squeezed)
    except CheckpointError as error:
        raise CheckpointError(f"{weights.path} cannot be converted: {error}") from error
    return rename_v3(drop_counters(weights.tensors)) if source == "canonical" else weights.tensors


def parse_checkpoint(weights: WeightsFile, *, task: str | None = "classify") -> Checkpoint:
    """Parse a checkpoint of this project from a file that was already read.

    Args:
        weights: Content of the file.
        task: Task of the network that is wanted, as for ``read_checkpoint``.

    Raises:
        CheckpointError: As ``read_checkpoint``.
    """
    path = weights.path
    if METADATA_KEY not in weights.metadata:
        raise CheckpointError(
            f"{path} is not a safetensors file with a description by ghostnets, so its architecture and classes are"
            " unknown; build the network and use ghostnets.load_checkpoint(model, path)."
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
            architecture=resolve_architecture(description["architecture"]),
            arguments=dict(description["arguments"]),
            state_dict=weights.tensors,
            class_names=tuple(map(str, description["class_names"])),
            preprocessing=Preprocessing.from_dict(description["preprocessing"]),
            temperature=_parse_temperature(description.get("temperature")),
            changes=tuple(map(dict, description.get("changes", []))),
            float_layers=tuple(map(str, description.get("float_layers", []))),
            multi_label=_parse_multi_label(description.get("multi_label", False)),
            training=dict(description.get("training", {})),
            sha256=weights.sha256,
        )
        if checkpoint.task != (stored := description.get("task", "classify")):
            raise ValueError(f"task is {stored!r}, but {checkpoint.architecture} is {TASKS[checkpoint.task]}")
        if (checkpoint.task == "classify") != (checkpoint.preprocessing.fit == "crop"):
            raise ValueError(f"fit is {checkpoint.preprocessing.fit!r}, not for {TASKS[checkpoint.task]}")
        _check_task(checkpoint, task, path)
        with torch.device("meta"):
            model = build_network(checkpoint.architecture, checkpoint.arguments, checkpoint.changes)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} has an invalid description ({error}); it is damaged or was written by another version."
        ) from error
    check_fit(model, weights.tensors, path, weights.tensors)
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


def _check_task(checkpoint: Checkpoint, task: str | None, path: Path) -> None:
    """Raise CheckpointError unless a checkpoint has the wanted task."""
    if task is None or checkpoint.task == task:
        return
    advice = {
        "detect": "find objects with it by: ghostnets predict",
        "classify": "classify images with it by: ghostnets predict",
        "segment": "segment images with it by: ghostnets predict",
    }[checkpoint.task]
    raise CheckpointError(
        f"{path} is {TASKS[checkpoint.task]} ({checkpoint.architecture}), and {TASKS[task]} is needed here; {advice}."
    )


def _parse_multi_label(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"multi_label is {value!r}, not true or false")
    return value


def _parse_temperature(value: Any) -> float | None:
    """The temperature of a checkpoint's description; raises ValueError for anything but a positive number or None."""
    if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
        raise ValueError(f"temperature is {value!r}, not a number above 0")
    return None if value is None else float(value)
