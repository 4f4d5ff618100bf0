"""Random transforms of a batch, with separate parameters for each image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["draw_uniform", "jitter_colors", "rotate"]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale


def draw_uniform(seeds: Sequence[int], stream: int) -> Tensor:
    """Draw one number in [0, 1) per seed, float32 (N,); streams are independent of each other.

    SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): number ``stream`` + 1 of the sequence that starts at the seed.
    """
    z = np.array(seeds, dtype=np.uint64) + np.uint64(((stream + 1) * 0x9E3779B97F4A7C15) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float32) / 2**24)


def rotate(images: Tensor, degrees: Tensor, *, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
    """Rotate images about their centres, with reflection at the borders.

    Args:
        images: uint8 (N, C, H, W).
        degrees: Counter-clockwise angles, float32 (N,).
        mode: Interpolation; ``nearest`` for masks.
    """
    n, _, h, w = images.shape
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    # From the output to the input, in coordinates that run from -1 to 1 along either side.
    theta = torch.stack([cos, -sin * h / w, zero, sin * w / h, cos, zero], 1).view(n, 2, 3)
    grid = F.affine_grid(theta, [n, 1, h, w], align_corners=False)
    turned = F.grid_sample(images.float(), grid, mode=mode, padding_mode="reflection", align_corners=False)
    return turned.round_().clamp_(0, 255).to(torch.uint8)


def jitter_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation, as torchvision's ``adjust_brightness`` and related functions.

    Args:
        images: uint8 (N, C, H, W); saturation changes only with 3 channels.
        factors: Factor of each of the three for each image, float32 (N, 3); 1 for no change.
    """
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors.unbind(1))
    pixels = (images.float() * brightness).clamp_(0, 255)
    mean = _to_gray(pixels).mean((1, 2, 3), keepdim=True)
    pixels = (mean + (pixels - mean) * contrast).clamp_(0, 255)
    if images.shape[1] == 3:
        gray = _to_gray(pixels)
        pixels = (gray + (pixels - gray) * saturation).clamp_(0, 255)
    return pixels.round_().to(torch.uint8)


def _to_gray(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    return (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
