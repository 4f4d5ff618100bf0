"""Training of only the classifier, on features that the frozen network computes once per image."""

import torch
from torch import Tensor, nn

from ghostnets.data import ArrayDataset, DatasetSplits, ImageDataset, evaluation_batches
from ghostnets.models import Network
from ghostnets.preprocessing import Preprocessing

__all__ = ["IdentityPreprocessing", "classifier_head", "extract_features"]

FLIPS: dict[str, tuple[tuple[int, ...], ...]] = {  # flipped axes of (N, C, H, W), for each image in the features
    "none": ((),),
    "horizontal": ((), (3,)),
    "vertical": ((), (2,)),
    "both": ((), (3,), (2,), (2, 3)),
}


class IdentityPreprocessing:
    """A ``Preprocessing`` for features: the identity."""

    def center(self, image: Tensor) -> Tensor:
        return image

    def normalize(self, images: Tensor) -> Tensor:
        return images


def classifier_head(network: nn.Module) -> nn.Module:
    """Dropout and the last linear layer of a network, shared with it: features (N, head_features) -> logits."""
    assert isinstance(network, Network)
    dropout = next((m for m in network.modules() if isinstance(m, nn.Dropout)), nn.Identity())
    return nn.Sequential(dropout, network.get_submodule(network.classifier_name))


def extract_features(
    network: Network, splits: DatasetSplits, preprocessing: Preprocessing, *, flip: str, device: torch.device
) -> DatasetSplits:
    """Compute the features of all training and validation images.

    Args:
        network: The network; it is left in evaluation mode.
        splits: The images.
        preprocessing: Preprocessing of the network.
        flip: Flips of each training image whose features are added: ``Recipe.flip``.
        device: Device of the network.
    """
    network.eval()
    train = [_features(network, splits.train, preprocessing, axes, device) for axes in FLIPS[flip]]
    return DatasetSplits(
        train=ArrayDataset(torch.cat(train), torch.cat([splits.train.labels] * len(train))),
        val=ArrayDataset(_features(network, splits.val, preprocessing, (), device), splits.val.labels),
        test=None,
        skipped=splits.skipped,
    )


@torch.no_grad()
def _features(
    network: Network, images: ImageDataset, preprocessing: Preprocessing, axes: tuple[int, ...], device: torch.device
) -> Tensor:
    """float32 (N, head_features)."""
    features = []
    for batch in evaluation_batches(images, preprocessing, batch_size=64):
        pixels = batch.pixels.flip(axes) if axes else batch.pixels
        maps = network.forward_features(preprocessing.normalize(pixels.to(device)))  # type: ignore[operator]
        features.append(network.forward_head(maps, pre_logits=True).float().cpu())  # type: ignore[operator]
    return torch.cat(features)
