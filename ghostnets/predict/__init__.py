"""Batch inference over files, folders and shards, with any network that ``artefacts`` opens. Loads no torch itself."""

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
