"""Networks in files, run through one interface whatever the runtime. Importing this package loads no torch."""

from ghostnets.artefacts.classifier import Classifier, Prediction, load_classifier
from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.artefacts.formats import FORMATS, ExportFormat
from ghostnets.artefacts.model import Model, Outputs
from ghostnets.artefacts.runtimes import SUFFIXES, open_model
from ghostnets.artefacts.scores import softmax, top_k

__all__ = [
    "FORMATS",
    "METADATA_KEY",
    "SUFFIXES",
    "Classifier",
    "Description",
    "ExportFormat",
    "Model",
    "Outputs",
    "Prediction",
    "load_classifier",
    "open_model",
    "softmax",
    "top_k",
]
