"""Batch inference over files, folders and shards, with any network that ``artefacts`` opens. Loads no torch itself."""

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
