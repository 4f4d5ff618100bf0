"""keras_cv_attention_models: GhostNet and GhostNetV2 as saved by its TensorFlow backend (.h5).

Both have the canonical arithmetic (gate relu6(x + 3) / 6, width of the gate rounded to multiples of 4, batch
normalisation with an epsilon of 1e-5, a head with bias), so tensors are only renamed and transposed. One difference is
not in the weights: that package upsamples the DFC gate of V2 from pixel centres, so for maps with odd sides, such as
7 x 7 at 224, its network differs from the published one, whose weights it holds.
"""

import io
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ghostnets.checkpoints.sources.canonical import BLOCKS, WIDE_BLOCK, add_batch_counters
from ghostnets.errors import CheckpointError, require

__all__ = ["convert_kecam", "read_h5"]

# Layers of a bottleneck: Keras name -> canonical name, each kind in the order in which Keras numbers them.
CONVOLUTIONS = {
    "ghost_1_short_1_conv": "ghost1.short_conv.0",
    "ghost_1_prim_conv": "ghost1.primary_conv.0",
    "se_1_conv": "se.conv_reduce",
    "se_2_conv": "se.conv_expand",
    "ghost_2_prim_conv": "ghost2.primary_conv.0",
    "short_2_conv": "shortcut.2",
}
DEPTHWISE = {
    "ghost_1_short_2_dw_conv": "ghost1.short_conv.2",
    "ghost_1_short_3_dw_conv": "ghost1.short_conv.4",
    "ghost_1_cheap_dw_conv": "ghost1.cheap_operation.0",
    "down_dw_conv": "conv_dw",
    "short_1_dw_conv": "shortcut.0",
    "ghost_2_cheap_dw_conv": "ghost2.cheap_operation.0",
}
NORMS = {
    "ghost_1_short_1_bn": "ghost1.short_conv.1",
    "ghost_1_prim_bn": "ghost1.primary_conv.1",
    "ghost_1_short_2_bn": "ghost1.short_conv.3",
    "ghost_1_short_3_bn": "ghost1.short_conv.5",
    "ghost_1_cheap_bn": "ghost1.cheap_operation.1",
    "down_bn": "bn_dw",
    "ghost_2_prim_bn": "ghost2.primary_conv.1",
    "short_1_bn": "shortcut.1",
    "ghost_2_cheap_bn": "ghost2.cheap_operation.1",
    "short_2_bn": "shortcut.3",
}


def _repeat_for_blocks(layers: Mapping[str, str]) -> dict[str, str]:
    """Repeat a name table of one bottleneck for all bottlenecks."""
    return {
        f"stack{number}_{theirs}": f"{block}.{ours}"
        for number, block in enumerate(BLOCKS, start=1)
        for theirs, ours in layers.items()
    }


# Keras class -> layers, Keras name -> canonical name.
LAYERS: dict[str, dict[str, str]] = {
    "conv2d": {
        "stem_conv": "conv_stem",
        **_repeat_for_blocks(CONVOLUTIONS),
        "pre_conv": f"{WIDE_BLOCK}.conv",
        "features_conv": "conv_head",
    },
    "depthwise_conv2d": _repeat_for_blocks(DEPTHWISE),
    "batch_normalization": {"stem_bn": "bn1", **_repeat_for_blocks(NORMS), "pre_bn": f"{WIDE_BLOCK}.bn1"},
    "dense": {"head": "classifier"},
}

# Keras class -> weights in the order of ``.weights.h5``, Keras name -> canonical name.
KERNEL, BIAS = {"kernel": "weight"}, {"bias": "bias"}
WEIGHTS: dict[str, dict[str, str]] = {
    "conv2d": KERNEL | BIAS,
    "depthwise_conv2d": {"depthwise_kernel": "weight"},
    "batch_normalization": {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
    "dense": KERNEL | BIAS,
}


def convert_kecam(tensors: Mapping[str, Tensor], *, names: Collection[str]) -> dict[str, Tensor]:
    """Convert the tensors of a .h5 file to a state dict of the canonical network.

    Keras stores kernels as (height, width, in, out), those of depthwise convolutions as (height, width, channels, 1),
    and matrices as (in, out).

    Args:
        tensors: Tensors by path, such as ``stem_conv/stem_conv/kernel:0``, or ``conv2d_7/vars/0`` in the numbered form
            of ``.weights.h5``.
        names: State-dict names of the network, which determine the numbering of layers in the numbered form.

    Raises:
        CheckpointError: The network has no such layer.
    """
    is_numbered = "conv2d/vars/0" in tensors
    ours: dict[str, tuple[str, str]] = {}  # layer/weight in the file -> canonical name, Keras class
    for kind, layers in LAYERS.items():
        present = [(layer, module) for layer, module in layers.items() if f"{module}.weight" in names]
        for number, (layer, module) in enumerate(present if is_numbered else layers.items()):
            if is_numbered:
                layer = f"{kind}_{number}" if number else kind
            for index, (weight, leaf) in enumerate(WEIGHTS[kind].items()):
                ours[f"{layer}/{index if is_numbered else weight}"] = (f"{module}.{leaf}", kind)

    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        layer, *_, weight = key.split("/")
        name = f"{layer}/{weight.partition(':')[0]}"
        if name not in ours:
            raise CheckpointError(
                f"GhostNet of keras_cv_attention_models has no tensor {key!r} for this network; the file belongs to"
                " another network."
            )
        target, kind = ours[name]
        if tensor.ndim == 4:
            tensor = tensor.permute((2, 3, 0, 1) if kind == "depthwise_conv2d" else (3, 2, 0, 1))
        renamed[target] = tensor.T.contiguous() if tensor.ndim == 2 else tensor.contiguous()
    return add_batch_counters(renamed)


def read_h5(content: bytes) -> dict[str, Tensor]:
    """Read the tensors of a file that Keras wrote by ``save_weights``, in either form, or ``save``.

    Args:
        content: Bytes of the file.

    Returns:
        Tensors by path.

    Raises:
        MissingExtraError: h5py is not installed.
        ValueError: The file contains anything but floating-point numbers stored in the file itself.
        Exception: Any exception of h5py, for a damaged file.
    """
    h5py = require("h5py", extra="import")
    tensors: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        root = file
        for group in ("model_weights", "layers"):  # not the optimizer state, which has its own group
            if isinstance(file.get(group, getlink=True), h5py.HardLink):
                root = file[group]
                break
        unread = len(content)

        def visit(path: str, item: object) -> None:
            nonlocal unread
            if not isinstance(item, h5py.Dataset):
                return
            # A hostile file could refer to other files, or expand a few bytes to any size.
            is_plain = item.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS and not item.external
            unread -= item.nbytes
            if item.dtype.kind != "f" or not is_plain or unread < 0:
                raise ValueError(f"{path} is not a contiguous array of floating-point numbers in this file")
            tensors[path] = torch.from_numpy(item[()].astype(item.dtype.newbyteorder("=")))

        root.visititems(visit)  # follows neither external links nor cycles
    if not tensors:
        raise ValueError("it contains no weights")
    return tensors
