"""Conversion of ports with TensorFlow's conventions to the canonical network, where renaming is not enough.

The port of d-li14 and PaddleClas follow the authors' TensorFlow code where the canonical network follows their PyTorch
code. Both compute the same family of functions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ghostnets.errors import CheckpointError
from ghostnets.layers import fold_batch_norm

__all__ = ["HEAD_NORM", "fold_port"]

HEAD_NORM = "head_norm"  # name for the normalisation after conv_head, which the canonical network does not have
BATCH_NORM_EPS = 1e-5  # default of PyTorch and Paddle, used by the ports and the canonical network


def fold_port(renamed: Mapping[str, Tensor], *, squeezed_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """Convert the tensors of a port, already renamed, to the canonical network with the same outputs.

    - Gate: clamp(y, 0, 1) = relu6(6 y - 3 + 3) / 6, so the second layer of squeeze-and-excitation becomes
      (6 W, 6 b - 3).
    - Width of the gate: the canonical network has more units (20 for 18, 32 for 30); the added units have zero weights,
      so their output relu(0) = 0 has no effect.
    - Head: the linear layer without bias and its batch normalisation become one convolution with bias.

    Args:
        renamed: Tensors under canonical names, with the normalisation of the head as ``HEAD_NORM``. Weights of
            squeeze-and-excitation and of the head are (out, in) or (out, in, 1, 1).
        squeezed_channels: Name of each ``se.conv_reduce.weight`` of the target network -> its output channels.

    Returns:
        State dict of the canonical network.

    Raises:
        CheckpointError: A tensor is missing or does not fit.
    """
    folded = {key: tensor for key, tensor in renamed.items() if not key.startswith(f"{HEAD_NORM}.")}
    try:
        for key, width in squeezed_channels.items():
            reduce, expand = (key.replace("conv_reduce.weight", layer) for layer in ("conv_reduce", "conv_expand"))
            missing = width - renamed[key].shape[0]
            if missing < 0:
                raise CheckpointError(
                    f"{key} has {renamed[key].shape[0]} units, this network {width}; build the network with the"
                    " arguments of the network that the file was saved from."
                )
            folded[f"{reduce}.weight"] = _as_kernel(_pad(renamed[f"{reduce}.weight"], 0, missing))
            folded[f"{reduce}.bias"] = _pad(renamed[f"{reduce}.bias"], 0, missing)
            folded[f"{expand}.weight"] = _as_kernel(_pad(6 * renamed[f"{expand}.weight"], 1, missing))
            folded[f"{expand}.bias"] = 6 * renamed[f"{expand}.bias"] - 3
        weight, folded["conv_head.bias"] = fold_batch_norm(
            renamed["conv_head.weight"],
            None,
            running_mean=renamed[f"{HEAD_NORM}.running_mean"],
            running_var=renamed[f"{HEAD_NORM}.running_var"],
            gamma=renamed[f"{HEAD_NORM}.weight"],
            beta=renamed[f"{HEAD_NORM}.bias"],
            eps=BATCH_NORM_EPS,
        )
    except KeyError as error:
        raise CheckpointError(f"the state dict has no tensor for {error.args[0]!r}; it is incomplete.") from error
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"the shapes of the tensors in the state dict are inconsistent ({error}); it is damaged."
        ) from error
    folded["conv_head.weight"] = _as_kernel(weight)
    return folded


def _pad(tensor: Tensor, dim: int, count: int) -> Tensor:
    """Append ``count`` zeros along ``dim``."""
    shape = list(tensor.shape)
    shape[dim] = count
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def _as_kernel(weight: Tensor) -> Tensor:
    """Reshape a weight to that of a 1x1 convolution: (out, in) or (out, in, 1, 1) -> (out, in, 1, 1)."""
    return weight.reshape(*weight.shape[:2], 1, 1)
