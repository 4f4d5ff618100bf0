"""The split that ``ghostnets eval`` evaluates, and the classes of its labels as those of the network."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.eval_network import read_training
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import download_progress, message
from ghostnets.data import DataSource, DataSpec, content_digest, describe_source
from ghostnets.data.layout import normalize_name
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.terminal import format_names
from ghostnets.train import RunFolder

__all__ = [
    "check_classifier_options",
    "choose_split",
    "find_training_images",
    "match_classes",
    "open_labels",
    "tell_training_images",
]


def check_classifier_options(command: EvalCommand, network: str, *, has_flip: bool = False) -> None:
    """Raise ConfigurationError for options that only classifiers have.

    Args:
        command: The command.
        network: Kind of the network with its article, such as "a detector".
        has_flip: Whether networks of this kind have ``--tta``.
    """
    given = {
        "--tta": command.tta != "none" and not has_flip,
        "--calibrate": command.calibrate,
        "--figure": command.figure is not None,
        "--full": command.full,
        "--root": command.root is not None,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise ConfigurationError(f"{command.network} is {network}, for which there is no {wrong[0]}; omit it.")


def open_labels(
    command: EvalCommand, *, task: str, class_names: tuple[str, ...], kind: str
) -> tuple[DataSource, str, list[int]]:
    """Open boxes or masks by the rules of evaluation, and describe them to the user.

    Args:
        command: The command.
        task: Task of the network, ``"detect"`` or ``"segment"``.
        class_names: Classes of the network.
        kind: What has a class, as for ``match_classes``.

    Returns:
        The source, the split to evaluate, and the index in the network of each class of the data.
    """
    path = command.network
    training = read_checkpoint(path, task=task).training if path.suffix == ".safetensors" else read_training(path)
    recipe = training.get("recipe", {})
    data = DataSpec(
        command.data,
        skip_corrupt=command.skip_corrupt,
        max_pixels=command.max_pixels,
        progress=download_progress(),
        task=task,
    )
    source = data.open(val_share=recipe.get("val_share", 0.2), seed=recipe.get("seed", 0), network_classes=class_names)
    split = choose_split(source, data.location, training) if command.split == "auto" else command.split
    for sentence in describe_source(source, by_split=split != "all" or not source.val_from_train):
        message(sentence)
    return source, split, match_classes(source.class_names, class_names, command.data, kind=kind)


def find_training_images(network: Path, contents: Sequence[Any]) -> npt.NDArray[np.bool_] | None:
    """Whether each image is a training image of the run that the network lies in, bool (N,); None if unknown.

    Args:
        network: File of the network.
        contents: Paths of the images, or objects whose ``read_bytes`` returns what training digests of each image.
    """
    run = RunFolder(network.parent)
    if not run.train_digests.is_file():
        return None
    digests = [content_digest(content.read_bytes()) for content in contents]
    return run.find_training_images(np.array(digests, np.uint64))


def tell_training_images(in_training: npt.NDArray[np.bool_] | None) -> None:
    """Warn of training images among those evaluated, or that they are unknown; as ``find_training_images`` returns."""
    if in_training is None:
        message("whether these are training images is unknown: train_digests.bin of the run is not next to the file.")
    elif seen := int(in_training.sum()):
        message(
            f"{seen} of {len(in_training)} images are training images of this network, so the figures are too good."
        )


def choose_split(source: DataSource, location: str, training: dict[str, Any]) -> str:
    """Return ``"test"``, else ``"val"`` if it was not split off images that the network was trained on, else ``"all"``.

    Args:
        source: The opened data.
        location: Location of the data.
        training: Provenance of the network, as in a checkpoint.
    """
    is_training_data = location == training.get("data") or source.identity == training.get("data_identity")
    has_val = "val" in source.split_names and (is_training_data or not source.val_from_train)
    return "test" if "test" in source.split_names else "val" if has_val else "all"


def match_classes(names: tuple[str, ...], known: tuple[str, ...], data: str, *, kind: str) -> list[int]:
    """Return the index in the network of each class of the data; classes that the data lack are told.

    Args:
        names: Classes of the data.
        known: Classes of the network.
        data: Name of the data in messages.
        kind: What has a class, ``"image"``, ``"box"`` or ``"pixel"``.

    Raises:
        DataError: A class of the data is not in the network, or several of the network have its name.
    """
    if names == known:
        return list(range(len(names)))
    indices = {normalize_name(name): index for index, name in enumerate(known)}
    names = tuple(map(normalize_name, names))
    counts = Counter(map(normalize_name, known))
    if doubled := [name for name in names if counts[name] > 1]:
        raise DataError(
            f"{data} has the class {doubled[0]}, and the checkpoint has {counts[doubled[0]]} classes of that name, so"
            " it is unknown which one is meant; leave the folder out."
        )
    if unknown := [name for name in names if name not in indices]:
        folded = {name.casefold() for name in indices}
        case = " Upper and lower case differ." if any(name.casefold() in folded for name in unknown) else ""
        raise DataError(
            f"{data} has classes that the checkpoint does not have ({format_names(unknown)});"
            f" it has {len(known)}: {format_names(known)}.{case}"
        )
    if absent := [name for name in known if normalize_name(name) not in names]:
        message(f"no {kind} of {format_names(absent)}")
    return [indices[name] for name in names]
