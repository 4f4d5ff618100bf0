"""Published weights: their locations, accuracy and preprocessing.

GhostNet 0.5x and 1.3x were trained by PaddleClas; keras_cv_attention_models publishes the same weights as Keras files.
There are no published weights of V2 0.5x and of V3 0.5x, 1.3x and 1.6x.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

from ghostnets.checkpoints.fetch import HUB_PREFIX, Progress, download, web_address
from ghostnets.checkpoints.load import load_checkpoint
from ghostnets.errors import CheckpointError, UnknownNameError
from ghostnets.models import resolve_name
from ghostnets.preprocessing import Preprocessing

__all__ = [
    "WEIGHTS",
    "PublishedPreprocessing",
    "PublishedWeights",
    "find_weights",
    "find_weights_at",
    "load_pretrained",
]


class PublishedPreprocessing(NamedTuple):
    """Published preprocessing of the images with which the accuracy was measured: resize, center crop, normalize."""

    interpolation: Literal["bicubic", "bilinear"]
    image_size: int = 224
    crop_share: float = 0.875  # crop ratio: image_size / shorter side before the crop, here 224 / 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published file of weights of a network, trained on ImageNet-1k.

    Attributes:
        tag: Publisher: ``"timm"``, ``"official"``, ``"paddleclas"``, ``"kecam"``, ``"d-li14"``.
        location: File of the hub (``hf://OWNER/REPOSITORY``) or URL of a release file.
        top1, top5: Published ImageNet accuracy in per cent; None if not published.
        accuracy_source: Source of the published accuracy.
        evaluation: Preprocessing with which the accuracy was published.
        licence: SPDX identifier.
        sha256: First hexadecimal digits of the file's SHA-256, if published.
    """

    tag: str
    location: str
    top1: float
    top5: float | None
    accuracy_source: str
    evaluation: PublishedPreprocessing
    licence: str = "Apache-2.0"
    sha256: str | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing with which the weights were evaluated, for inference, fine-tuning and distillation."""
        size, mean, std = self.evaluation.image_size, self.evaluation.mean, self.evaluation.std
        return Preprocessing(size, round(size / self.evaluation.crop_share), mean, std, self.evaluation.interpolation)

    @property
    def url(self) -> str:
        """URL of the file."""
        return web_address(self.location)


RELEASES = "https://github.com/huawei-noah/Efficient-AI-Backbones/releases/download"
PADDLE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
KECAM = "https://github.com/leondgarse/keras_cv_attention_models/releases/download/ghostnetv2"


def _timm(repository: str, top1: float, top5: float) -> PublishedWeights:
    return PublishedWeights(
        tag="timm",
        location=f"{HUB_PREFIX}timm/{repository}",
        top1=top1,
        top5=top5,
        accuracy_source="timm, results-imagenet.csv",
        evaluation=PublishedPreprocessing("bicubic"),
    )


def _official(
    url: str, top1: float, top5: float | None, source: str, interpolation: Literal["bicubic", "bilinear"]
) -> PublishedWeights:
    return PublishedWeights(
        tag="official",
        location=url,
        top1=top1,
        top5=top5,
        accuracy_source=source,
        evaluation=PublishedPreprocessing(interpolation),
    )


def _g_ghost(size: str, top1: float) -> PublishedWeights:
    url = f"{RELEASES}/g_ghost_regnet/g_ghost_regnet_{size}_{top1}.pth"
    return _official(url, top1, None, "official README of G-Ghost", "bilinear")


def _paddleclas(file: str, top1: float, top5: float, tag: str = "paddleclas") -> PublishedWeights:
    return PublishedWeights(
        tag=tag,
        location=f"{PADDLE}/{file}_pretrained.pdparams",
        top1=top1,
        top5=top5,
        accuracy_source="PaddleClas, Mobile_en.md",
        evaluation=PublishedPreprocessing("bilinear"),  # OpenCV, which downsamples without antialiasing
    )


def _kecam(file: str, top1: float, tag: str = "kecam") -> PublishedWeights:
    return PublishedWeights(
        tag=tag,
        location=f"{KECAM}/{file}.h5",
        top1=top1,
        top5=None,
        accuracy_source="README of keras_cv_attention_models",
        evaluation=PublishedPreprocessing(
            "bicubic", crop_share=0.95
        ),  # not published; the defaults of its eval_script.py
    )


# The first entry of a network is the default. V2 and V3 were trained and evaluated by a copy of timm's script, whose
# default is bicubic; V1's validate.py resizes bilinearly.
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "ghostnet_050": (
        _paddleclas("GhostNet_x0_5", 66.8, 86.9),
        _kecam("ghostnet_050_imagenet", 66.88),
    ),
    "ghostnet_100": (
        _timm("ghostnet_100.in1k", 73.958, 91.542),
        _official(
            "https://github.com/huawei-noah/CV-backbones/releases/download/ghostnet_pth/ghostnet_1x.pth",
            *(73.98, 91.46, "official ghostnet_pytorch/readme.md", "bilinear"),
        ),
        _paddleclas("GhostNet_x1_0", 74.0, 91.6),
        _kecam("ghostnet_100_imagenet", 74.16),
    ),
    "ghostnet_130": (
        _paddleclas("GhostNet_x1_3", 75.7, 92.5),
        _paddleclas("GhostNet_x1_3_ssld", 79.4, 94.5, "paddleclas-ssld"),
        _kecam("ghostnet_130_imagenet", 75.79),
        _kecam("ghostnet_130_ssld", 79.38, "kecam-ssld"),
    ),
    "ghostnetv2_100": (
        _timm("ghostnetv2_100.in1k", 75.186, 92.334),
        _official(f"{RELEASES}/GhostNetV2/ck_ghostnetv2_10.pth.tar", 75.3, None, "official README", "bicubic"),
    ),
    "ghostnetv2_130": (
        _timm("ghostnetv2_130.in1k", 76.746, 93.364),
        _official(f"{RELEASES}/GhostNetV2/ck_ghostnetv2_13.pth.tar", 76.9, None, "timm pull request 1916", "bicubic"),
    ),
    "ghostnetv2_160": (
        _timm("ghostnetv2_160.in1k", 77.836, 93.948),
        _official(f"{RELEASES}/GhostNetV2/ck_ghostnetv2_16.pth.tar", 77.8, None, "timm pull request 1916", "bicubic"),
    ),
    "ghostnetv3_100": (
        _timm("ghostnetv3_100.in1k", 76.936, 93.124),
        # The file holds two sets of weights: the averaged ones, which are loaded, have this accuracy; timm publishes
        # the others.
        _official(
            f"{RELEASES}/GhostNetV3/ghostnetv3-1.0.pth.tar",
            *(77.134, 93.236, "PaddleClas, GhostNetV3.md", "bicubic"),
        ),
    ),
    # Release, file names and evaluation (that of PyTorch's ImageNet example) according to the official README.
    "g_ghost_regnetx_032": (_g_ghost("3.2g", 77.8),),
    "g_ghost_regnetx_040": (_g_ghost("4.0g", 78.6),),
    "g_ghost_regnetx_080": (_g_ghost("8.0g", 79.0),),
    "g_ghost_regnetx_160": (_g_ghost("16.0g", 79.9),),
    "ghostnet_100_d_li14_revised": (
        PublishedWeights(
            tag="d-li14",
            location="https://github.com/d-li14/ghostnet.pytorch/raw/master/pretrained/ghostnet_1x-f97d70db.pth",
            top1=73.636,
            top5=91.228,
            accuracy_source="README of d-li14/ghostnet.pytorch",
            evaluation=PublishedPreprocessing("bilinear"),  # not published; that of PyTorch's ImageNet example
            licence="MIT",
        ),
    ),
}
"""Published weights by network; the first entry is the default."""


def find_weights(name: str, tag: str | None = None) -> PublishedWeights:
    """Published weights of a network.

    Args:
        name: Name of the network.
        tag: Tag of the weights; default: the first of the network.

    Raises:
        UnknownNameError: The network is unknown, or it has no weights with this tag.
        CheckpointError: The network has no published weights.
    """
    name = resolve_name(name)
    if name not in WEIGHTS:
        raise CheckpointError(
            f"no weights of {name} are published; networks with published weights: {', '.join(WEIGHTS)}."
        )
    by_tag = {weights.tag: weights for weights in WEIGHTS[name]}
    if tag is None:
        return WEIGHTS[name][0]
    if tag not in by_tag:
        raise UnknownNameError(f"tag of {name}", tag, by_tag)
    return by_tag[tag]


def find_weights_at(name: str, location: str | None) -> PublishedWeights | None:
    """Find the published weights of a network by their location on the hub or their URL; None if there are none."""
    if location is None:
        return None
    return next(
        (weights for weights in WEIGHTS.get(resolve_name(name), ()) if weights.url == web_address(location)), None
    )


def load_pretrained(
    model: nn.Module,
    name: str,
    tag: str | None = None,
    *,
    replace_head: bool = False,
    progress: Progress | None = None,
) -> PublishedWeights:
    """Load published weights into a network, strictly.

    Example::

        model = create_model("ghostnet_100", num_classes=10)
        load_pretrained(model, "ghostnet_100", replace_head=True)

    Args:
        model: Network built by ``create_model(name, ...)``; modified in place.
        name: Name of the network.
        tag: Tag of the weights; default: the first of ``WEIGHTS[name]``.
        replace_head: Keep the network's own classifier, for classes other than ImageNet's 1000, and load the rest.
        progress: Callback of ``download``.

    Returns:
        Entry of the loaded weights, with their preprocessing.

    Raises:
        CheckpointError: There are no such weights, the download failed, or they do not fit the network.
        MissingExtraError: The file is .h5 and h5py is not installed.
        StorageError: The file could not be written.
        UnknownNameError: The network or the tag is unknown.
    """
    weights = find_weights(name, tag)
    file = download(weights.location, sha256=weights.sha256, progress=progress)
    load_checkpoint(model, file, replace_head=replace_head)
    return weights
