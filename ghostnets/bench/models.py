"""Networks to benchmark, by name: this package's, timm's and torchvision's."""

from typing import NamedTuple

from torch import nn

from ghostnets.compress import reparameterize
from ghostnets.errors import ConfigurationError, require
from ghostnets.models import create_model, model_entry
from ghostnets.models.detection import create_detector
from ghostnets.models.names import DETECTOR_NAMES, SEGMENTER_NAMES
from ghostnets.models.segmentation import create_segmenter

__all__ = ["BenchmarkModel", "create_benchmark_model"]

LIBRARIES = ("timm", "torchvision")
DETECTOR_SIZE, SEGMENTER_SIZE = 416, 512  # of the costs in docs/detection.md and docs/segmentation.md


class BenchmarkModel(NamedTuple):
    """A network to benchmark or profile.

    Attributes:
        model: Network in evaluation mode, training-time branches merged.
        image_size: Side of the square input in pixels.
        top1: Published ImageNet accuracy in per cent, or None.
        accuracy_source: Publisher of ``top1``.
    """

    model: nn.Module
    image_size: int
    top1: float | None
    accuracy_source: str


def create_benchmark_model(name: str, *, image_size: int | None = None) -> BenchmarkModel:
    """Build a network with random weights.

    Args:
        name: One of ``list_models()``, ``list_detectors()`` or ``list_segmenters()``, or ``"timm:NAME"`` or
            ``"torchvision:NAME"``.
        image_size: Side of the input in pixels; by default, the size of the published accuracy, and of a detector 416,
            of a segmentation network 512.

    Raises:
        UnknownNameError: No registered model has this name.
        ConfigurationError: timm or torchvision has no such network, or the library is neither of them.
        MissingExtraError: timm is not installed.
    """
    library, _, library_name = name.rpartition(":")
    if name in DETECTOR_NAMES:
        return BenchmarkModel(create_detector(name).eval(), image_size or DETECTOR_SIZE, None, "")
    if name in SEGMENTER_NAMES:
        return BenchmarkModel(create_segmenter(name).eval(), image_size or SEGMENTER_SIZE, None, "")
    if not library:
        _, variant, source = model_entry(name)
        size = image_size or variant.benchmark.image_size
        top1 = variant.top1 if variant.benchmark.name == "ImageNet" else None
        return BenchmarkModel(reparameterize(create_model(name)).eval(), size, top1, source)
    if library not in LIBRARIES:
        raise ConfigurationError(f"{name} names the library {library!r}; it must be one of {', '.join(LIBRARIES)}.")
    return (_from_timm if library == "timm" else _from_torchvision)(library_name, image_size)


def _from_timm(name: str, image_size: int | None) -> BenchmarkModel:
    timm = require("timm", extra="bench")
    utilities = require("timm.utils", extra="bench")
    if name not in timm.list_models():
        raise ConfigurationError(f"timm {timm.__version__} has no network {name!r}.")
    model = timm.create_model(name).eval()
    size = image_size or model.default_cfg["input_size"][-1]
    return BenchmarkModel(utilities.reparameterize_model(model).eval(), size, None, "")


def _from_torchvision(name: str, image_size: int | None) -> BenchmarkModel:
    models = require("torchvision.models", extra="bench")
    if name not in models.list_models(module=models):
        raise ConfigurationError(f"torchvision has no classifier {name!r}.")
    weights = next(iter(models.get_model_weights(name)))  # the first entry is the original recipe's
    size = image_size or weights.transforms.keywords["crop_size"]
    top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return BenchmarkModel(models.get_model(name).eval(), size, top1, f"torchvision, {weights}")
