"""Batch inference over files, folders and shards, with any network of ``artefacts``. Importable without torch."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.predict.box_pictures import BoxPictures
    from ghostnets.predict.cluster import predict_on_ray
    from ghostnets.predict.inputs import Input, find_files, find_inputs
    from ghostnets.predict.mask_files import MaskFiles, MaskPictures
    from ghostnets.predict.object_writers import find_object_writer
    from ghostnets.predict.prediction_file import PredictionFile
    from ghostnets.predict.streaming import detect_objects, predict_images, segment_images
    from ghostnets.predict.writers import as_dict, find_writer

__all__ = [
    "BoxPictures",
    "Input",
    "MaskFiles",
    "MaskPictures",
    "PredictionFile",
    "as_dict",
    "detect_objects",
    "find_files",
    "find_inputs",
    "find_object_writer",
    "find_writer",
    "predict_images",
    "predict_on_ray",
    "segment_images",
]

_MODULES = {
    "BoxPictures": "box_pictures",
    "Input": "inputs",
    "MaskFiles": "mask_files",
    "MaskPictures": "mask_files",
    "PredictionFile": "prediction_file",
    "as_dict": "writers",
    "find_files": "inputs",
    "detect_objects": "streaming",
    "find_inputs": "inputs",
    "find_object_writer": "object_writers",
    "find_writer": "writers",
    "predict_images": "streaming",
    "predict_on_ray": "cluster",
    "segment_images": "streaming",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
