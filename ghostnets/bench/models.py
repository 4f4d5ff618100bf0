"""Networks to be compared, by name: ours, and those of timm and torchvision."""

from typing import NamedTuple

from torch import nn

from ghostnets.compress import reparameterize
from ghostnets.errors import ConfigurationError, require
from ghostnets.models import create_model, model_entry

__all__ = ["BenchmarkModel", "create_benchmark_model"]

PEERS = ("timm", "torchvision")


class BenchmarkModel(NamedTuple):
    """A network in a benchmark.

    Attributes:
        model: In evaluation mode, with the branches of training merged; its weights are random.
        image_size: Side of the square input in pixels.
        top1: Published ImageNet accuracy in per cent, or None.
        accuracy_source: Who publishes it.
    """

    model: nn.Module
    image_size: int
    top1: float | None
    accuracy_source: str


def create_benchmark_model(name: str, *, image_size: int | None = None) -> BenchmarkModel:
    """Builds a network.

    Args:
        name: One of ``list_models()``, or ``"timm:NAME"`` or ``"torchvision:NAME"``.
        image_size: Side of the input; by default that of the published accuracy.

    Raises:
        UnknownNameError: There is no such network of ours.
        ConfigurationError: There is no such network elsewhere.
        MissingExtraError: timm is not installed.
    """
    library, _, peer = name.rpartition(":")
    if not library:
        _, variant, source = model_entry(name)
        size = image_size or variant.benchmark.image_size
        top1 = variant.top1 if variant.benchmark.name == "ImageNet" else None
        return BenchmarkModel(reparameterize(create_model(name)).eval(), size, top1, source)
    if library not in PEERS:
        raise ConfigurationError(f"{name} is of library {library!r}; it must be one of {', '.join(PEERS)}.")
    return (_from_timm if library == "timm" else _from_torchvision)(peer, image_size)


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
    if name not in models.list_models():
        raise ConfigurationError(f"torchvision has no network {name!r}.")
    weights = next(iter(models.get_model_weights(name)))  # the first are those of the original recipe
    size = image_size or weights.transforms.keywords["crop_size"]
    top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return BenchmarkModel(models.get_model(name).eval(), size, top1, f"torchvision, {weights}")
