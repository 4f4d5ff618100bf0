"""Networks in files, run through one interface whatever the runtime. Importing this package loads no torch.

Names are imported on first access: the command line needs only the table of formats.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.artefacts.classifier import LABEL_THRESHOLD, NONE_OF_THESE, Classifier, Prediction, load_classifier
    from ghostnets.artefacts.description import METADATA_KEY, Description
    from ghostnets.artefacts.formats import FORMATS, FileFormat
    from ghostnets.artefacts.model import Model, Outputs
    from ghostnets.artefacts.runtimes import SUFFIXES, open_model
    from ghostnets.artefacts.scores import probabilities_of, softmax, top_k

__all__ = [
    "FORMATS",
    "LABEL_THRESHOLD",
    "METADATA_KEY",
    "NONE_OF_THESE",
    "SUFFIXES",
    "Classifier",
    "Description",
    "FileFormat",
    "Model",
    "Outputs",
    "Prediction",
    "load_classifier",
    "open_model",
    "probabilities_of",
    "softmax",
    "top_k",
]

_MODULES = {
    "FORMATS": "formats",
    "LABEL_THRESHOLD": "classifier",
    "METADATA_KEY": "description",
    "NONE_OF_THESE": "classifier",
    "SUFFIXES": "runtimes",
    "Classifier": "classifier",
    "Description": "description",
    "FileFormat": "formats",
    "Model": "model",
    "Outputs": "model",
    "Prediction": "classifier",
    "load_classifier": "classifier",
    "open_model": "runtimes",
    "probabilities_of": "scores",
    "softmax": "scores",
    "top_k": "scores",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
