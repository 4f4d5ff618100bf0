"""Training the classifier alone: all before it is computed once for each image, so minutes on a CPU are enough."""

import torch
from torch import Tensor, nn

from ghostnets.data import ArrayDataset, DatasetSplits, ImageDataset, evaluation_batches
from ghostnets.models import Network
from ghostnets.preprocessing import Preprocessing

__all__ = ["IdentityPreprocessing", "classifier_head", "extract_features"]


class IdentityPreprocessing:
    """In the place of a ``Preprocessing``, for features: nothing is left to be done."""

    def center(self, image: Tensor) -> Tensor:
        return image

    def normalize(self, images: Tensor) -> Tensor:
        return images


def classifier_head(network: Network) -> nn.Module:
    """What is trained: dropout and the last linear layer, features (N, head_features) -> logits. They are shared."""
    dropout = next((m for m in network.modules() if isinstance(m, nn.Dropout)), nn.Identity())
    return nn.Sequential(dropout, network.get_submodule(network.classifier_name))


def extract_features(
    network: Network, splits: DatasetSplits, preprocessing: Preprocessing, *, mirrored: bool, device: torch.device
) -> DatasetSplits:
    """Features in the place of images: of each training image, and with ``mirrored`` of its mirror image as well.

    Args:
        network: In whatever mode; it is asked in evaluation mode and left in it.
        splits: The images.
        preprocessing: Of the network.
        mirrored: Twice the training set.
        device: Where the network is.
    """
    network.eval()
    train = [
        _features(network, splits.train, preprocessing, flip, device)
        for flip in ((False, True) if mirrored else (False,))
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
    found = []
    for batch in evaluation_batches(images, preprocessing, batch_size=64):
        pixels = batch.pixels.flip(3) if flip else batch.pixels
        maps = network.forward_features(preprocessing.normalize(pixels.to(device)))  # type: ignore[operator]
        found.append(network.forward_head(maps, pre_logits=True).float().cpu())  # type: ignore[operator]
    return torch.cat(found)
