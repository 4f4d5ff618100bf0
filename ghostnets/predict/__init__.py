"""Batch inference over files, folders and shards, with any network that ``artefacts`` opens. Loads no torch itself."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.predict.cluster import predict_on_ray
    from ghostnets.predict.inputs import Input, find_files, find_inputs
    from ghostnets.predict.prediction_file import PredictionFile
    from ghostnets.predict.streaming import predict_images
    from ghostnets.predict.writers import as_dict, find_writer

__all__ = [
    "Input",
    "PredictionFile",
    "as_dict",
    "find_files",
    "find_inputs",
    "find_writer",
    "predict_images",
    "predict_on_ray",
]

_MODULES = {
    "Input": "inputs",
    "PredictionFile": "prediction_file",
    "as_dict": "writers",
    "find_files": "inputs",
    "find_inputs": "inputs",
    "find_writer": "writers",
    "predict_images": "streaming",
    "predict_on_ray": "cluster",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
