"""The deployed form of a network: BN-fused, with normalisation and probabilities, traced once for all formats."""

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ghostnets.artefacts import Description
from ghostnets.artefacts.model import normalize
from ghostnets.artefacts.scores import Array
from ghostnets.checkpoints import Checkpoint
from ghostnets.compress import fuse
from ghostnets.errors import ExportError
from ghostnets.models import Network
from ghostnets.models.detection import Detector
from ghostnets.models.segmentation import SegmentationNetwork

__all__ = ["DeployedModel", "ExportJob", "trace"]

LARGEST_STRIDE = 64  # of networks of other libraries
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}


@dataclass(frozen=True)
class ExportJob:
    """Input of a format's writer.

    Attributes:
        checkpoint: Checkpoint of the network.
        description: Properties of the file, to be stored in it.
        calibration: uint8 (N, S, S, C), real images for int8 calibration; empty for other precisions.
        opset: Version of ONNX's operators, or None for the default.
    """

    checkpoint: Checkpoint
    description: Description
    calibration: npt.NDArray[np.uint8]
    opset: int | None = None

    def calibration_batches(self) -> list[npt.NDArray[np.uint8] | Array]:
        """Return the calibration images in the input format of the file, in batches of its size, or of one."""
        takes_uint8, size = self.description.input == "uint8", self.description.batch or 1
        starts = range(0, len(self.calibration), size)
        batches = [self.calibration.take(range(i, i + size), axis=0, mode="wrap") for i in starts]
        return [batch if takes_uint8 else normalize(batch, self.description.preprocessing) for batch in batches]


class DeployedModel(nn.Module):
    """Fused network with the normalisation, and the softmax or sigmoid, that ``description`` asks for, in eval mode.

    Maps images, uint8 (N, H, W, C) or float32 (N, C, H, W), to ``(scores,)`` or ``(scores, features)`` in float32.

    Args:
        network: Network to deploy; it is not modified. One of another library has no features.
        description: Precision, input and outputs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, description: Description) -> None:
        super().__init__()
        self.dtype = DTYPES[description.precision]
        self.network, self.classifier = _split_classifier(network)
        self.to(self.dtype)
        self.temperature = description.temperature
        self.takes_uint8 = description.input == "uint8"
        self.has_probabilities, self.has_features = description.output == "probabilities", description.has_features
        self.multi_label = description.multi_label
        for name, values in (("mean", description.preprocessing.mean), ("std", description.preprocessing.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * 255)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.takes_uint8:
            images = images.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
            images = images.to(torch.float32, memory_format=torch.contiguous_format)  # for simple operators after it
            images = (images - self.mean) / self.std
        features = self.network(images.to(self.dtype))
        scores = self.classifier(features).float()
        if self.has_probabilities:
            scores = scores if self.temperature is None else scores / self.temperature
            scores = scores.sigmoid() if self.multi_label else scores.softmax(1)
        return (scores, features.float()) if self.has_features else (scores,)


def _split_classifier(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return copies of a network up to its features, and of its classifier."""
    if isinstance(network, Detector | SegmentationNetwork):
        return fuse(network), nn.Identity()
    if not isinstance(network, Network):  # of another library: the exporters fold its normalisation
        return copy.deepcopy(network), nn.Identity()
    fused = fuse(network)
    assert isinstance(fused, Network)
    # Without its classifier, a network returns the classifier's input: the features.
    classifier = copy.deepcopy(fused.get_submodule(fused.classifier_name))
    fused.reset_classifier(0)
    return fused, classifier


def trace(job: ExportJob) -> ExportedProgram:
    """Trace the deployed model with ``torch.export``, with dynamic sizes of batch and images, if described so.

    Args:
        job: Checkpoint and description.

    Raises:
        ExportError: torch cannot trace the network.
    """
    description, network = job.description, job.checkpoint.build()
    # For a dynamic size, the example is large enough that no feature map is 1 x 1, and not square.
    stride = network.feature_levels[-1].stride if isinstance(network, Network) else LARGEST_STRIDE
    side = 4 * stride if description.any_size else description.preprocessing.image_size
    height, width = side, side + 8 * description.any_size
    batch, channels = description.batch or 2, description.preprocessing.channels
    dynamic = {} if description.batch else {0: Dim.DYNAMIC}
    if description.input == "uint8":
        example, size_dims = torch.zeros(batch, height, width, channels, dtype=torch.uint8), (1, 2)
    else:
        example, size_dims = torch.zeros(batch, channels, height, width), (2, 3)
    if description.any_size:
        dynamic |= dict.fromkeys(size_dims, Dim.DYNAMIC)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the tracer's own internals
            return torch.export.export(DeployedModel(network, description), (example,), dynamic_shapes=(dynamic,))
    except Exception as error:  # torch has no common base class for tracing errors
        raise ExportError(
            f"torch cannot trace {description.architecture} ({str(error).strip().splitlines()[0]});"
            " try a fixed image size, or report the error."
        ) from error
