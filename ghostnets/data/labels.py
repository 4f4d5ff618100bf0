"""Labels of image files: one class, or of multi-label data any number of classes. Importable without torch."""

from dataclasses import dataclass

from ghostnets.data.stored_images import ImagePath

__all__ = ["Label", "LabelledFiles", "indices_of"]

Label = int | tuple[int, ...]  # index of the class; of multi-label data the ascending indices of any number of classes


@dataclass(frozen=True)
class LabelledFiles:
    """Image files, each with its label."""

    paths: tuple[ImagePath, ...]
    labels: tuple[Label, ...]


def indices_of(label: Label) -> tuple[int, ...]:
    """Indices of the classes of a label."""
    return label if isinstance(label, tuple) else (label,)
