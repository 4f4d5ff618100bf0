"""Data sets: image folders, shards, the embedded Fashion-MNIST; augmentation and batches.

Training needs torch, reading images does not: each name is imported on first access.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.data.augment import Augmentation, derive_seed
    from ghostnets.data.batches import Batch, BatchAugmentation, EvalTransform, TrainingBatches, evaluation_batches
    from ghostnets.data.check import DataCheck, check_images
    from ghostnets.data.datasets import (
        ArrayDataset,
        DatasetSplits,
        FileDataset,
        ImageDataset,
        ImageFiles,
        JoinedDataset,
        load_files,
    )
    from ghostnets.data.fashion_mnist import FashionMnist
    from ghostnets.data.folders import ImageFolder, open_folder
    from ghostnets.data.samples import Sample, find_sample, spread
    from ghostnets.data.shards import ShardDataset, ShardFolder, open_shards, write_shards
    from ghostnets.data.source import DataSource, describe_source, summarize_source
    from ghostnets.data.spec import EMBEDDED, TASKS, DataSpec, check_val_share, find_task
    from ghostnets.data.stored_images import content_digest

__all__ = [
    "EMBEDDED",
    "TASKS",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "BatchAugmentation",
    "DataCheck",
    "DataSource",
    "DataSpec",
    "DatasetSplits",
    "EvalTransform",
    "FashionMnist",
    "FileDataset",
    "ImageDataset",
    "ImageFiles",
    "ImageFolder",
    "JoinedDataset",
    "Sample",
    "ShardDataset",
    "ShardFolder",
    "TrainingBatches",
    "check_images",
    "check_val_share",
    "content_digest",
    "derive_seed",
    "describe_source",
    "evaluation_batches",
    "find_sample",
    "find_task",
    "load_files",
    "open_folder",
    "open_shards",
    "spread",
    "summarize_source",
    "write_shards",
]

_MODULES = {
    "EMBEDDED": "spec",
    "TASKS": "spec",
    "ArrayDataset": "datasets",
    "Augmentation": "augment",
    "Batch": "batches",
    "BatchAugmentation": "batches",
    "DataCheck": "check",
    "DataSource": "source",
    "DataSpec": "spec",
    "DatasetSplits": "datasets",
    "EvalTransform": "batches",
    "FashionMnist": "fashion_mnist",
    "FileDataset": "datasets",
    "ImageDataset": "datasets",
    "ImageFiles": "datasets",
    "JoinedDataset": "datasets",
    "content_digest": "stored_images",
    "ImageFolder": "folders",
    "Sample": "samples",
    "ShardDataset": "shards",
    "ShardFolder": "shards",
    "TrainingBatches": "batches",
    "derive_seed": "augment",
    "describe_source": "source",
    "check_images": "check",
    "evaluation_batches": "batches",
    "find_sample": "samples",
    "check_val_share": "spec",
    "find_task": "spec",
    "load_files": "datasets",
    "open_folder": "folders",
    "open_shards": "shards",
    "spread": "samples",
    "summarize_source": "source",
    "write_shards": "shards",
}


__getattr__ = lazy_getattr(__name__, _MODULES)
