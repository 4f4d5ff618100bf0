"""Other people's weights: one file a source, with its key table."""

from ghostnets.checkpoints.sources.canonical import drop_counters, rename_v3
from ghostnets.checkpoints.sources.printed_port import fold_printed_port
from ghostnets.errors import CheckpointError

__all__ = ["detect_source", "drop_counters", "fold_printed_port", "rename_v3"]


def detect_source(keys: frozenset[str]) -> str:
    """``"printed_port"`` or ``"canonical"``, from the names of a state dict.

    Raises:
        CheckpointError: The names are those of no known source.
    """
    if "features.0.0.weight" in keys and "squeeze.0.weight" in keys:
        return "printed_port"
    if "conv_stem.weight" in keys:
        return "canonical"
    raise CheckpointError(
        f"these {len(keys)} tensors are of no known network (they begin with {', '.join(sorted(keys)[:3])}, ...);"
        " known are the canonical names (conv_stem, blocks.0.0.ghost1, ...) and the printed port (features.0, squeeze)."
    )
