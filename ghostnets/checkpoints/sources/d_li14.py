"""Key table of d-li14's port of GhostNet 1.0x (https://github.com/d-li14/ghostnet.pytorch), earlier revision."""

from collections.abc import Mapping

from torch import Tensor

from ghostnets.checkpoints.sources.canonical import BLOCKS, WIDE_BLOCK
from ghostnets.checkpoints.sources.folding import HEAD_NORM, fold_port
from ghostnets.errors import CheckpointError
from ghostnets.models.d_li14 import BLOCKS as PORT_BLOCKS

__all__ = ["D_LI14_KEYS", "convert_d_li14"]


def _d_li14_keys() -> dict[str, str]:
    """Map key prefixes of the port to those of the canonical network."""
    keys = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    for number, block in zip(PORT_BLOCKS, BLOCKS, strict=True):
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


D_LI14_KEYS = _d_li14_keys()


def convert_d_li14(state_dict: Mapping[str, Tensor], *, squeezed_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """Convert a state dict of d-li14's port to the canonical GhostNet 1.0x with the same outputs.

    Args:
        state_dict: Tensors under the port's names.
        squeezed_channels: Squeeze-and-excitation widths of the target network, as in ``fold_port``.

    Returns:
        State dict of the canonical network.

    Raises:
        CheckpointError: A name is not in the key table, or a tensor is missing.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        prefix, _, leaf = key.rpartition(".")
        if prefix not in D_LI14_KEYS:
            raise CheckpointError(
                f"GhostNet of d-li14/ghostnet.pytorch has no tensor {key!r}; this state dict belongs to another"
                " network."
            )
        renamed[f"{D_LI14_KEYS[prefix]}.{leaf}"] = tensor
    return fold_port(renamed, squeezed_channels=squeezed_channels)
