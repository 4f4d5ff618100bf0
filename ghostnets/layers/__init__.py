"""A Ghost layer and what it is made of."""

from ghostnets.layers.conv import ConvBnAct, fold_batch_norm, make_divisible
from ghostnets.layers.ghost import GhostBottleneck, GhostModule, theoretical_speedup
from ghostnets.layers.squeeze_excite import SqueezeExcite

__all__ = [
    "ConvBnAct",
    "GhostBottleneck",
    "GhostModule",
    "SqueezeExcite",
    "fold_batch_norm",
    "make_divisible",
    "theoretical_speedup",
]
