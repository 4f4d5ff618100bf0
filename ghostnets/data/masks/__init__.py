"""Images with masks: a class for each pixel; tables of classes, splits, augmentation. Reading labels loads no torch."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.data.masks.augment import MaskAugmentation
    from ghostnets.data.masks.folder import MaskFolder
    from ghostnets.data.masks.layout import MaskPair
    from ghostnets.data.masks.source import MaskSource, open_masks
    from ghostnets.data.masks.table import IGNORED, ClassTable, read_table

__all__ = [
    "IGNORED",
    "ClassTable",
    "MaskAugmentation",
    "MaskFolder",
    "MaskPair",
    "MaskSource",
    "open_masks",
    "read_table",
]

_MODULES = {
    "ClassTable": "table",
    "IGNORED": "table",
    "MaskAugmentation": "augment",
    "MaskFolder": "folder",
    "MaskPair": "layout",
    "MaskSource": "source",
    "open_masks": "source",
    "read_table": "table",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
