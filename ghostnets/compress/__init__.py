"""Compression of trained networks: fusion of layers, Ghost modules in place of convolutions, fewer channels."""

from ghostnets.needs_torch import TORCH  # noqa: F401 - first, so that its absence is one sentence

# isort: split
from ghostnets.compress.fuse import fuse, reparameterize
from ghostnets.compress.ghostify import Analysis, CompressionReport, analyse, ghostify
from ghostnets.compress.heal import HealReport, heal
from ghostnets.compress.latency import Timer
from ghostnets.compress.least_squares import MapStatistics, PairStatistics
from ghostnets.compress.quantize import Int8Runner, LayerSensitivity, QuantizationReport, quantize
from ghostnets.compress.sensitivity import SiteSensitivity
from ghostnets.compress.surgery import apply_changes

__all__ = [
    "Analysis",
    "CompressionReport",
    "HealReport",
    "Int8Runner",
    "LayerSensitivity",
    "MapStatistics",
    "PairStatistics",
    "QuantizationReport",
    "SiteSensitivity",
    "Timer",
    "analyse",
    "apply_changes",
    "fuse",
    "ghostify",
    "heal",
    "quantize",
    "reparameterize",
]
