"""Answers: from a checkpoint in Python, or from any artefact for any number of images; only the former loads torch."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.predict.answer_file import AnswerFile
    from ghostnets.predict.answers import Prediction, predict_images
    from ghostnets.predict.cluster import predict_on_ray
    from ghostnets.predict.formats import FORMATS, as_dict
    from ghostnets.predict.inputs import Input, find_files, find_inputs
    from ghostnets.predict.predictor import Predictor, load_predictor

__all__ = [
    "FORMATS",
    "AnswerFile",
    "Input",
    "Prediction",
    "Predictor",
    "as_dict",
    "find_files",
    "find_inputs",
    "load_predictor",
    "predict_images",
    "predict_on_ray",
]

_MODULES = {
    "FORMATS": "formats",
    "AnswerFile": "answer_file",
    "Input": "inputs",
    "Prediction": "answers",
    "Predictor": "predictor",
    "as_dict": "formats",
    "find_files": "inputs",
    "find_inputs": "inputs",
    "load_predictor": "predictor",
    "predict_images": "answers",
    "predict_on_ray": "cluster",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
