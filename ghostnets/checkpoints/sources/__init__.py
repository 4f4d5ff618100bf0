"""Conversion of weights from other implementations: one module per source, with its key table."""

from collections.abc import Collection

from ghostnets.checkpoints.sources.canonical import drop_counters, rename_to_timm, rename_v3
from ghostnets.checkpoints.sources.d_li14 import convert_d_li14
from ghostnets.checkpoints.sources.kecam import convert_kecam, read_h5
from ghostnets.checkpoints.sources.ncnn import NcnnConvolution, load_ncnn, read_ncnn
from ghostnets.checkpoints.sources.paddleclas import convert_paddleclas, read_pdparams

__all__ = [
    "SOURCES",
    "SOURCE_ALIASES",
    "NcnnConvolution",
    "convert_d_li14",
    "convert_kecam",
    "convert_paddleclas",
    "detect_source",
    "drop_counters",
    "load_ncnn",
    "read_h5",
    "read_ncnn",
    "read_pdparams",
    "rename_to_timm",
    "rename_v3",
]

SOURCES: dict[str, tuple[set[str], ...]] = {
    "d_li14": ({"features.0.0.weight", "squeeze.0.weight"},),
    "paddleclas": ({"conv1._conv.weight", "conv_last._conv.weight"},),
    "kecam": ({"stem_conv/stem_conv/kernel:0"}, {"conv2d/vars/0"}),
    "canonical": (set(),),
}
"""Sources of convertible weights, each with alternative sets of tensor names that identify its files."""

SOURCE_ALIASES = {"printed_port": "d_li14"}
"""Earlier names of sources, to their names."""


def detect_source(names: Collection[str]) -> str:
    """Detect the source of a state dict, one of ``SOURCES``, from its tensor names; default ``"canonical"``."""
    return next(source for source, marks in SOURCES.items() if any(mark <= set(names) for mark in marks))
