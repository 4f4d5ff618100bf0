"""Batch inference over files, folders and shards, with any network that ``artefacts`` opens. Loads no torch itself."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostnets.predict.cluster import predict_on_ray
    from ghostnets.predict.inputs import Input, find_files, find_inputs
    from ghostnets.predict.prediction_file import PredictionFile
    from ghostnets.predict.streaming import predict_images
    from ghostnets.predict.writers import WRITERS, as_dict

__all__ = [
    "WRITERS",
    "Input",
    "PredictionFile",
    "as_dict",
    "find_files",
    "find_inputs",
    "predict_images",
    "predict_on_ray",
]

_MODULES = {
    "WRITERS": "writers",
    "Input": "inputs",
    "PredictionFile": "prediction_file",
    "as_dict": "writers",
    "find_files": "inputs",
    "find_inputs": "inputs",
    "predict_images": "streaming",
    "predict_on_ray": "cluster",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'ghostnets.predict' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ghostnets.predict.{_MODULES[name]}"), name)
