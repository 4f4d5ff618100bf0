"""The printed port of the founding document: its key table, and the arithmetic where names are not enough."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ghostnets.errors import CheckpointError
from ghostnets.layers import fold_batch_norm
from ghostnets.models.ghostnet import STAGES
from ghostnets.models.printed_port import ROWS

__all__ = ["PRINTED_PORT_KEYS", "fold_printed_port"]

BATCH_NORM_EPS = 1e-5  # PyTorch's default, which both the port and the canonical network use


def _printed_port_keys() -> dict[str, str]:
    """Prefixes of the printed port -> prefixes of the canonical network."""
    canonical = [f"blocks.{s}.{b}" for s, stage in enumerate(STAGES) for b in range(len(stage))]
    keys = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    for number, block in zip(ROWS, canonical, strict=True):
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
        "squeeze.0": f"blocks.{len(STAGES)}.0.conv",
        "squeeze.1": f"blocks.{len(STAGES)}.0.bn1",
        "classifier.0": "conv_head",
        "classifier.4": "classifier",
    }


PRINTED_PORT_KEYS = _printed_port_keys()
PRINTED_PORT_HEAD_NORM = "classifier.1"  # folded into conv_head, so it has no name in the canonical network


def fold_printed_port(state_dict: Mapping[str, Tensor], *, squeezed_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """State dict of the printed port -> state dict of the canonical GhostNet 1.0x with the same outputs.

    - The gate: clamp(y, 0, 1) = relu6(6 y - 3 + 3) / 6, so the second layer of squeeze-and-excitation becomes
      (6 W, 6 b - 3).
    - Its width: the canonical network has a few units more (20 for 18, 32 for 30). The new units get zero weights, so
      they are relu(0) = 0 and add nothing.
    - The head: the linear layer and its batch normalisation become one convolution with bias.

    Args:
        state_dict: Tensors under the names of the printed port.
        squeezed_channels: Canonical name of each ``se.conv_reduce.weight`` -> number of its output channels.

    Raises:
        CheckpointError: A name is not in the key table.
    """
    folded: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        prefix, _, leaf = key.rpartition(".")
        if prefix == PRINTED_PORT_HEAD_NORM:
            continue
        if prefix not in PRINTED_PORT_KEYS:
            raise CheckpointError(
                f"the printed port has no tensor {key!r}; this state dict comes from another network."
            )
        folded[f"{PRINTED_PORT_KEYS[prefix]}.{leaf}"] = tensor

    for key, width in squeezed_channels.items():
        block = key.removesuffix(".conv_reduce.weight")
        try:
            reduce_weight, reduce_bias, expand_weight, expand_bias = (
                folded[f"{block}.{name}"]
                for name in ("conv_reduce.weight", "conv_reduce.bias", "conv_expand.weight", "conv_expand.bias")
            )
        except KeyError as error:
            raise CheckpointError(f"the state dict lacks what becomes {error.args[0]!r}; it is incomplete.") from error
        missing = width - reduce_weight.shape[0]
        folded[f"{block}.conv_reduce.weight"] = _pad(reduce_weight, 0, missing)[:, :, None, None]
        folded[f"{block}.conv_reduce.bias"] = _pad(reduce_bias, 0, missing)
        folded[f"{block}.conv_expand.weight"] = _pad(6 * expand_weight, 1, missing)[:, :, None, None]
        folded[f"{block}.conv_expand.bias"] = 6 * expand_bias - 3

    try:
        norm = {
            argument: state_dict[f"{PRINTED_PORT_HEAD_NORM}.{leaf}"]
            for argument, leaf in [
                ("running_mean", "running_mean"),
                ("running_var", "running_var"),
                ("gamma", "weight"),
                ("beta", "bias"),
            ]
        }
        head = folded["conv_head.weight"]
    except KeyError as error:
        raise CheckpointError(f"the state dict lacks {error.args[0]!r}; it is incomplete.") from error
    weight, bias = fold_batch_norm(head, None, eps=BATCH_NORM_EPS, **norm)
    folded["conv_head.weight"], folded["conv_head.bias"] = weight[:, :, None, None], bias
    return folded


def _pad(tensor: Tensor, dim: int, count: int) -> Tensor:
    """Appends ``count`` zeros along ``dim``."""
    shape = list(tensor.shape)
    shape[dim] = count
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)
