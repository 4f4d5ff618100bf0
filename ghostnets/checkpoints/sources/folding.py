"""Arithmetic that turns a port with TensorFlow's conventions into the canonical network, where names are not enough.

The port of d-li14 and PaddleClas follow the authors' TensorFlow code where the canonical network follows their PyTorch
code. Both compute the same family of functions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ghostnets.errors import CheckpointError
from ghostnets.layers import fold_batch_norm

__all__ = ["HEAD_NORM", "fold_port"]

HEAD_NORM = "head_norm"  # what a source calls the normalisation after conv_head, which the canonical network lacks
BATCH_NORM_EPS = 1e-5  # PyTorch's default and Paddle's, which the ports and the canonical network use


def fold_port(renamed: Mapping[str, Tensor], *, squeezed_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """State dict of a port under canonical names -> state dict of the canonical network with the same outputs.

    - The gate: clamp(y, 0, 1) = relu6(6 y - 3 + 3) / 6, so the second layer of squeeze-and-excitation becomes
      (6 W, 6 b - 3).
    - Its width: the canonical network has a few units more (20 for 18, 32 for 30). The new units get zero weights, so
      they are relu(0) = 0 and add nothing.
    - The head: the layer without bias and its batch normalisation become one convolution with bias.

    Args:
        renamed: Canonical names, with the normalisation of the head as ``HEAD_NORM``. Matrices of
            squeeze-and-excitation and of the head are (out, in), with or without a 1x1 kernel.
        squeezed_channels: Name of each ``se.conv_reduce.weight`` -> number of its output channels.

    Raises:
        CheckpointError: A tensor is missing.
    """
    folded = {key: tensor for key, tensor in renamed.items() if not key.startswith(f"{HEAD_NORM}.")}
    try:
        for key, width in squeezed_channels.items():
            reduce, expand = (key.replace("conv_reduce.weight", layer) for layer in ("conv_reduce", "conv_expand"))
            missing = width - renamed[key].shape[0]
            if missing < 0:
                raise CheckpointError(
                    f"{key} has {renamed[key].shape[0]} units, this network {width}; build the network with the"
                    " arguments the file was made with."
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
        raise CheckpointError(f"the state dict lacks what becomes {error.args[0]!r}; it is incomplete.") from error
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(f"the tensors of the state dict do not go together ({error}); it is damaged.") from error
    folded["conv_head.weight"] = _as_kernel(weight)
    return folded


def _pad(tensor: Tensor, dim: int, count: int) -> Tensor:
    """Appends ``count`` zeros along ``dim``."""
    shape = list(tensor.shape)
    shape[dim] = count
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def _as_kernel(weight: Tensor) -> Tensor:
    """(out, in) or (out, in, 1, 1) -> (out, in, 1, 1)."""
    return weight.reshape(*weight.shape[:2], 1, 1)
