"""Training of the classifier alone, on features that the frozen network computes once per image."""

import torch
from torch import Tensor, nn

from ghostnets.data import ArrayDataset, DatasetSplits, ImageDataset, evaluation_batches
from ghostnets.models import Network
from ghostnets.preprocessing import Preprocessing

__all__ = ["IdentityPreprocessing", "classifier_head", "extract_features"]


class IdentityPreprocessing:
    """A ``Preprocessing`` for features: the identity."""

    def center(self, image: Tensor) -> Tensor:
        return image

    def normalize(self, images: Tensor) -> Tensor:
        return images


def classifier_head(network: Network) -> nn.Module:
    """Dropout and the last linear layer of a network, shared with it: features (N, head_features) -> logits."""
    dropout = next((m for m in network.modules() if isinstance(m, nn.Dropout)), nn.Identity())
    return nn.Sequential(dropout, network.get_submodule(network.classifier_name))


def extract_features(
    network: Network, splits: DatasetSplits, preprocessing: Preprocessing, *, flip: bool, device: torch.device
) -> DatasetSplits:
    """Compute the features of all training and validation images.

    Args:
        network: The network; it is left in evaluation mode.
        splits: The images.
        preprocessing: Preprocessing of the network.
        flip: Add the features of each training image flipped horizontally.
        device: Device of the network.
    """
    network.eval()
    train = [
        _features(network, splits.train, preprocessing, is_flipped, device)
        for is_flipped in ((False, True) if flip else (False,))
    ]
    return DatasetSplits(
        train=ArrayDataset(torch.cat(train), splits.train.labels.repeat(len(train))),
        val=ArrayDataset(_features(network, splits.val, preprocessing, False, device), splits.val.labels),
        test=None,
        skipped=splits.skipped,
    )


@torch.no_grad()
def _features(
    network: Network, images: ImageDataset, preprocessing: Preprocessing, flip: bool, device: torch.device
) -> Tensor:
    """float32 (N, head_features)."""
    features = []
    for batch in evaluation_batches(images, preprocessing, batch_size=64):
        pixels = batch.pixels.flip(3) if flip else batch.pixels
        maps = network.forward_features(preprocessing.normalize(pixels.to(device)))  # type: ignore[operator]
        features.append(network.forward_head(maps, pre_logits=True).float().cpu())  # type: ignore[operator]
    return torch.cat(features)
