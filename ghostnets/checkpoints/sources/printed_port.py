"""The printed port of the founding document: its key table."""

from collections.abc import Mapping

from torch import Tensor

from ghostnets.checkpoints.sources.canonical import BLOCKS, WIDE_BLOCK
from ghostnets.checkpoints.sources.folding import HEAD_NORM, fold_port
from ghostnets.errors import CheckpointError
from ghostnets.models.printed_port import ROWS

__all__ = ["PRINTED_PORT_KEYS", "fold_printed_port"]


def _printed_port_keys() -> dict[str, str]:
    """Prefixes of the printed port -> prefixes of the canonical network."""
    keys = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    for number, block in zip(ROWS, BLOCKS, strict=True):
        port = f"features.{number}"
        for index, ghost in [(0, "ghost1"), (3, "ghost2")]:
            for half in ("primary_conv", "cheap_operation"):
                for layer in (0, 1):
                    keys[f"{port}.conv.{index}.{half}.{layer}"] = f"{block}.{ghost}.{half}.{layer}"
        keys |= {
            f"{port}.conv.1.0": f"{block}.conv_dw",
            f"{port}.conv.1.1": f"{block}.bn_dw",
            f"{port}.conv.2.fc.0": f"{block}.se.conv_reduce",
            f"{port}.conv.2.fc.2": f"{block}.se.conv_expand",
            f"{port}.shortcut.0.0": f"{block}.shortcut.0",
            f"{port}.shortcut.0.1": f"{block}.shortcut.1",
            f"{port}.shortcut.1": f"{block}.shortcut.2",
            f"{port}.shortcut.2": f"{block}.shortcut.3",
        }
    return keys | {
        "squeeze.0": f"{WIDE_BLOCK}.conv",
        "squeeze.1": f"{WIDE_BLOCK}.bn1",
        "classifier.0": "conv_head",
        "classifier.1": HEAD_NORM,
        "classifier.4": "classifier",
    }


PRINTED_PORT_KEYS = _printed_port_keys()


def fold_printed_port(state_dict: Mapping[str, Tensor], *, squeezed_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """State dict of the printed port -> state dict of the canonical GhostNet 1.0x with the same outputs.

    Args:
        state_dict: Tensors under the names of the printed port.
        squeezed_channels: As for ``fold_port``.

    Raises:
        CheckpointError: A name is not in the key table, or a tensor is missing.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        prefix, _, leaf = key.rpartition(".")
        if prefix not in PRINTED_PORT_KEYS:
            raise CheckpointError(
                f"the printed port has no tensor {key!r}; this state dict comes from another network."
            )
        renamed[f"{PRINTED_PORT_KEYS[prefix]}.{leaf}"] = tensor
    return fold_port(renamed, squeezed_channels=squeezed_channels)
