"""Other people's weights: one file a source, with its key table."""

from collections.abc import Collection

from ghostnets.checkpoints.sources.canonical import drop_counters, rename_v3
from ghostnets.checkpoints.sources.d_li14 import fold_d_li14
from ghostnets.checkpoints.sources.kecam import read_h5, rename_kecam
from ghostnets.checkpoints.sources.paddleclas import fold_paddleclas, read_pdparams

__all__ = [
    "SOURCES",
    "SOURCE_ALIASES",
    "detect_source",
    "drop_counters",
    "fold_d_li14",
    "fold_paddleclas",
    "read_h5",
    "read_pdparams",
    "rename_kecam",
    "rename_v3",
]

# Source -> names that a file of it has, one of these sets.
SOURCES: dict[str, tuple[set[str], ...]] = {
    "d_li14": ({"features.0.0.weight", "squeeze.0.weight"},),
    "paddleclas": ({"conv1._conv.weight", "conv_last._conv.weight"},),
    "kecam": ({"stem_conv/stem_conv/kernel:0"}, {"conv2d/vars/0"}),
    "canonical": (set(),),
}

SOURCE_ALIASES = {"printed_port": "d_li14"}  # earlier name -> name


def detect_source(names: Collection[str]) -> str:
    """Whose names these are, one of ``SOURCES``: ``"canonical"`` unless they are known to be another's."""
    return next(source for source, marks in SOURCES.items() if any(mark <= set(names) for mark in marks))
