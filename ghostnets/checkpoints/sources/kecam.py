"""keras_cv_attention_models: GhostNet and GhostNetV2 as its TensorFlow backend saves them (.h5).

Both have the canonical arithmetic (gate relu6(x + 3) / 6, its width rounded to multiples of 4, batch normalisation with
an epsilon of 1e-5, a head with bias), so renaming and transposing is all. One thing is not in the weights: that package
enlarges the DFC gate of V2 from pixel centres, so at maps with odd sides, such as the 7 x 7 at 224, its own network
differs from the published one, whose weights it holds.
"""

import io
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ghostnets.checkpoints.sources.canonical import BLOCKS, WIDE_BLOCK, add_batch_counters
from ghostnets.errors import CheckpointError, require

__all__ = ["read_h5", "rename_kecam"]

# Of a bottleneck: layers by their Keras name, each kind in the order in which Keras numbers them.
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


def _in_blocks(layers: Mapping[str, str]) -> dict[str, str]:
    return {
        f"stack{number}_{theirs}": f"{block}.{ours}"
        for number, block in enumerate(BLOCKS, start=1)
        for theirs, ours in layers.items()
    }


# Keras class -> layers, Keras name -> canonical name.
LAYERS: dict[str, dict[str, str]] = {
    "conv2d": {
        "stem_conv": "conv_stem",
        **_in_blocks(CONVOLUTIONS),
        "pre_conv": f"{WIDE_BLOCK}.conv",
        "features_conv": "conv_head",
    },
    "depthwise_conv2d": _in_blocks(DEPTHWISE),
    "batch_normalization": {"stem_bn": "bn1", **_in_blocks(NORMS), "pre_bn": f"{WIDE_BLOCK}.bn1"},
    "dense": {"head": "classifier"},
}

# Keras class -> its weights in the order of ``.weights.h5``, Keras name -> canonical name.
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


def rename_kecam(tensors: Mapping[str, Tensor], *, names: Collection[str]) -> dict[str, Tensor]:
    """Tensors of a .h5 file -> state dict of the canonical network.

    Kernels are (height, width, in, out), those of depthwise convolutions (height, width, channels, 1), matrices
    (in, out).

    Args:
        tensors: By path, ``stem_conv/stem_conv/kernel:0``, or ``conv2d_7/vars/0`` in the numbered form that
            ``.weights.h5`` has.
        names: Of the network's state dict. They tell which layers the numbers count; the other form does not need them.

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
                f"GhostNet in keras_cv_attention_models has no tensor {key!r} that goes into this network; the file is"
                " of another one."
            )
        target, kind = ours[name]
        if tensor.ndim == 4:
            tensor = tensor.permute((2, 3, 0, 1) if kind == "depthwise_conv2d" else (3, 2, 0, 1))
        renamed[target] = tensor.T.contiguous() if tensor.ndim == 2 else tensor.contiguous()
    return add_batch_counters(renamed)


def read_h5(content: bytes) -> dict[str, Tensor]:
    """Paths and tensors of a file written by Keras: ``save_weights`` in either form, or ``save``.

    Raises:
        MissingExtraError: h5py is not installed.
        ValueError: It holds anything but floating-point numbers stored in the file itself.
        Exception: As h5py raises for a damaged file.
    """
    h5py = require("h5py", extra="import")
    tensors: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        root = file
        for part in ("model_weights", "layers"):  # beside them lies the state of an optimiser
            if isinstance(file.get(part, getlink=True), h5py.HardLink):
                root = file[part]
                break
        unread = len(content)

        def visit(path: str, item: object) -> None:
            nonlocal unread
            if not isinstance(item, h5py.Dataset):
                return
            # A hostile file could name other files, or a few bytes that unfold to any size.
            is_plain = item.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS and not item.external
            unread -= item.nbytes
            if item.dtype.kind != "f" or not is_plain or unread < 0:
                raise ValueError(f"{path} is no plain array of floating-point numbers in this file")
            tensors[path] = torch.from_numpy(item[()].astype(item.dtype.newbyteorder("=")))

        root.visititems(visit)  # follows neither links to other files nor circles
    if not tensors:
        raise ValueError("it holds no weights")
    return tensors
