"""Layers of the GhostNet family."""

from ghostnets.needs_torch import TORCH  # noqa: F401 - first, so that its absence is one sentence

# isort: split
from ghostnets.layers.bottleneck import GhostBottleneck
from ghostnets.layers.conv import ConvBnAct, fold_batch_norm, make_divisible, norm_arguments
from ghostnets.layers.dfc import DFCGate
from ghostnets.layers.ghost import GhostModule, theoretical_speedup
from ghostnets.layers.ghost_conv import GhostConv2d, narrow_conv
from ghostnets.layers.reparam import RepConv
from ghostnets.layers.squeeze_excite import SqueezeExcite
from ghostnets.layers.stochastic_depth import drop_path, drop_path_rates

__all__ = [
    "ConvBnAct",
    "DFCGate",
    "GhostBottleneck",
    "GhostConv2d",
    "GhostModule",
    "RepConv",
    "SqueezeExcite",
    "drop_path",
    "drop_path_rates",
    "fold_batch_norm",
    "make_divisible",
    "narrow_conv",
    "norm_arguments",
    "theoretical_speedup",
]
