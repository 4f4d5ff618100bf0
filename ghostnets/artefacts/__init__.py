"""Networks in files, run through one interface whatever the runtime. Importable without torch.

Names are imported on first access: the command line needs only the table of formats.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.artefacts.boxes import decode_predictions, suppress
    from ghostnets.artefacts.classifier import LABEL_THRESHOLD, NONE_OF_THESE, Classifier, Prediction, load_classifier
    from ghostnets.artefacts.description import METADATA_KEY, Description
    from ghostnets.artefacts.detector import DetectedObjects, ObjectDetector, load_detector
    from ghostnets.artefacts.formats import FORMATS, FileFormat
    from ghostnets.artefacts.model import Model, Outputs
    from ghostnets.artefacts.runtimes import SUFFIXES, open_model
    from ghostnets.artefacts.scores import probabilities_of, softmax, top_k
    from ghostnets.artefacts.segmenter import SegmentedImage, Segmenter, load_segmenter

__all__ = [
    "FORMATS",
    "LABEL_THRESHOLD",
    "METADATA_KEY",
    "NONE_OF_THESE",
    "SUFFIXES",
    "Classifier",
    "Description",
    "DetectedObjects",
    "FileFormat",
    "Model",
    "ObjectDetector",
    "Outputs",
    "Prediction",
    "SegmentedImage",
    "Segmenter",
    "decode_predictions",
    "load_classifier",
    "load_detector",
    "load_segmenter",
    "open_model",
    "probabilities_of",
    "softmax",
    "suppress",
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
    "DetectedObjects": "detector",
    "FileFormat": "formats",
    "Model": "model",
    "ObjectDetector": "detector",
    "Outputs": "model",
    "Prediction": "classifier",
    "SegmentedImage": "segmenter",
    "Segmenter": "segmenter",
    "decode_predictions": "boxes",
    "load_classifier": "classifier",
    "load_detector": "detector",
    "load_segmenter": "segmenter",
    "open_model": "runtimes",
    "probabilities_of": "scores",
    "softmax": "scores",
    "suppress": "boxes",
    "top_k": "scores",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
