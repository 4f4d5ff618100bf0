"""Batch normalisation that the file of a network had folded into its convolutions, restored for further training."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["find_folded_norms", "restore_norms"]


def find_folded_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the normalisations that add a bias and nothing else, as ``checkpoints.load_ncnn`` leaves them."""
    return [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm2d) and _is_folded(norm)]


@torch.no_grad()
def restore_norms(network: nn.Module, norms: list[nn.BatchNorm2d], batches: Iterable[Tensor]) -> None:
    """Give folded normalisations the statistics of their inputs, and weights that undo them.

    The network computes what it did before in evaluation mode, and nearly that in training mode, in which an identity
    would normalise maps that were not normalised when it was trained. The network is left in training mode.

    Args:
        network: The network, modified in place.
        norms: Its folded normalisations.
        batches: Images on which the statistics are measured, normalised, (N, C, H, W) each.
    """
    sums = {norm: torch.zeros(2, norm.num_features, dtype=torch.float64, device=norm.bias.device) for norm in norms}
    counts = dict.fromkeys(norms, 0)

    def add(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = inputs[0].double().transpose(0, 1).flatten(1)  # (C, N * H * W)
        sums[norm] += torch.stack([values.sum(1), values.square().sum(1)])
        counts[norm] += values.shape[1]

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        network.eval()
        for images in batches:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        mean, square = sums[norm] / counts[norm]
        variance = (square - mean.square()).clamp(min=0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)
    network.train()


def _is_folded(norm: nn.BatchNorm2d) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or not norm.affine:
        return False
    return bool((mean == 0).all() and (norm.weight == 1).all() and (variance == torch.tensor(1 - norm.eps)).all())
