"""Labelled image files: one class, or of multi-label data any number of classes. Importable without torch."""

from dataclasses import dataclass

from ghostnets.data.stored_images import ImagePath

__all__ = ["Label", "LabelledFiles", "LabelledFolder", "indices_of"]

Label = int | tuple[int, ...]  # index of the class; of multi-label data the ascending indices of any number of classes


@dataclass(frozen=True)
class LabelledFiles:
    """Image files, each with its label."""

    paths: tuple[ImagePath, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class LabelledFolder:
    """The labelled files of a folder.

    Attributes:
        class_names: Names of the classes (NFC), sorted.
        splits: Files of each split; ``"train"`` alone if the folder has no splits.
        notes: Assumptions and exclusions, one sentence each.
        identity: Digest of names, sizes, splits and classes of the files, wherever the folder is.
        multi_label: Whether an image can have any number of classes; all labels are then tuples.
        broken: A sentence for each box, mask or image of such that cannot be used; None if the labels are classes.
        box_counts: Number of boxes of each class, by split; None if the labels are not boxes.
    """

    class_names: tuple[str, ...]
    splits: dict[str, LabelledFiles]
    notes: tuple[str, ...]
    identity: str
    multi_label: bool = False
    broken: tuple[str, ...] | None = None
    box_counts: dict[str, tuple[int, ...]] | None = None


def indices_of(label: Label) -> tuple[int, ...]:
    """Indices of the classes of a label."""
    return label if isinstance(label, tuple) else (label,)
