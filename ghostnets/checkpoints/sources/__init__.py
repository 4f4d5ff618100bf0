"""Other people's weights: one file a source, with its key table."""

from collections.abc import Collection

from ghostnets.checkpoints.sources.canonical import drop_counters, rename_v3
from ghostnets.checkpoints.sources.kecam import read_h5, rename_kecam
from ghostnets.checkpoints.sources.paddleclas import fold_paddleclas, read_pdparams
from ghostnets.checkpoints.sources.printed_port import fold_printed_port

__all__ = [
    "SOURCES",
    "detect_source",
    "drop_counters",
    "fold_paddleclas",
    "fold_printed_port",
    "read_h5",
    "read_pdparams",
    "rename_kecam",
    "rename_v3",
]

# Source -> names that a file of it has, one of these sets.
SOURCES: dict[str, tuple[set[str], ...]] = {
    "printed_port": ({"features.0.0.weight", "squeeze.0.weight"},),
    "paddleclas": ({"conv1._conv.weight", "conv_last._conv.weight"},),
    "kecam": ({"stem_conv/stem_conv/kernel:0"}, {"conv2d/vars/0"}),
    "canonical": (set(),),
}


def detect_source(names: Collection[str]) -> str:
    """Whose names these are, one of ``SOURCES``: ``"canonical"`` unless they are known to be another's."""
    return next(source for source, marks in SOURCES.items() if any(mark <= set(names) for mark in marks))
