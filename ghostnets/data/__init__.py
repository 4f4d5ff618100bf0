"""Images in: folders, the embedded set, preprocessing and batches.

What trains needs torch, what only reads images does not; so each name is imported when it is first asked for.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ghostnets.errors import ConfigurationError
from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.data.augment import Augmentation, derive_seed
    from ghostnets.data.batches import Batch, EvalTransform, TrainingBatches, evaluation_batches
    from ghostnets.data.datasets import (
        ArrayDataset,
        DatasetSplits,
        FileDataset,
        ImageDataset,
        load_files,
    )
    from ghostnets.data.fashion_mnist import FashionMnist
    from ghostnets.data.folders import ImageFolder, open_folder
    from ghostnets.data.shards import ShardDataset, ShardFolder, open_shards, write_shards

__all__ = [
    "EMBEDDED",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "DatasetSplits",
    "EvalTransform",
    "FashionMnist",
    "FileDataset",
    "ImageDataset",
    "ImageFolder",
    "ShardDataset",
    "ShardFolder",
    "TrainingBatches",
    "derive_seed",
    "evaluation_batches",
    "load_files",
    "open_data",
    "open_folder",
    "open_shards",
    "write_shards",
]

_MODULES = {
    "ArrayDataset": "datasets",
    "Augmentation": "augment",
    "Batch": "batches",
    "EvalTransform": "batches",
    "FashionMnist": "fashion_mnist",
    "FileDataset": "datasets",
    "ImageFolder": "folders",
    "DatasetSplits": "datasets",
    "ImageDataset": "datasets",
    "ShardFolder": "shards",
    "ShardDataset": "shards",
    "TrainingBatches": "batches",
    "derive_seed": "augment",
    "evaluation_batches": "batches",
    "open_folder": "folders",
    "load_files": "datasets",
    "open_shards": "shards",
    "write_shards": "shards",
}

EMBEDDED = "fashion-mnist"


def open_data(
    data: str | os.PathLike[str] = EMBEDDED,
    *,
    full: bool = False,
    root: str | os.PathLike[str] | None = None,
    val_share: float = 0.2,
    seed: int = 0,
) -> "ImageFolder | ShardFolder | FashionMnist":
    """A dataset by name or folder; no pixel is read yet.

    Args:
        data: ``"fashion-mnist"``, the path of a folder (see ``ImageFolder``), or the path or address of shards (see
            ``write_shards``).
        full: Of Fashion-MNIST: all 70,000 images.
        root: With ``full``: the folder of their files.
        val_share: Share of each class that is split off for validation where a folder has no such part.
        seed: Of that split.

    Raises:
        DataError: As ``open_folder`` or ``open_shards``.
        ConfigurationError: ``full`` or ``root`` with a folder of one's own.
    """
    from ghostnets.data.fashion_mnist import FashionMnist
    from ghostnets.data.folders import open_folder
    from ghostnets.data.shards import is_shards, open_shards

    if str(data) == EMBEDDED:
        if root is not None and not full:
            raise ConfigurationError("--root goes with --full, the whole of Fashion-MNIST.")
        return FashionMnist(full=full, root=None if root is None else Path(root), seed=seed)
    if full or root is not None:
        raise ConfigurationError(f"--full and --root belong to {EMBEDDED}, not to the folder {data}.")
    return open_shards(data) if is_shards(data) else open_folder(data, val_share=val_share, seed=seed)


__getattr__ = lazy_getattr(__name__, _MODULES)
