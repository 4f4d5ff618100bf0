"""The split that ``ghostnets eval`` evaluates, and the classes of its labels as those of the network."""

from collections import Counter
from typing import Any

from ghostnets.cli.output import message
from ghostnets.data import DataSource
from ghostnets.data.layout import normalize_name
from ghostnets.errors import DataError

__all__ = ["choose_split", "match_classes"]


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
    """Return the index in the network of each class of the data; classes without an image or box are told.

    Args:
        names: Classes of the data.
        known: Classes of the network.
        data: Name of the data in messages.
        kind: What has a class, ``"image"`` or ``"box"``.

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
            f"{data} has classes that the checkpoint does not have ({', '.join(unknown[:5])});"
            f" it has {len(known)}: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}.{case}"
        )
    if absent := [name for name in known if normalize_name(name) not in names]:
        shown = ", ".join(absent[:8]) + (f", ... ({len(absent)})" if len(absent) > 8 else "")
        message(f"no {kind} of {shown}")
    return [indices[name] for name in names]
