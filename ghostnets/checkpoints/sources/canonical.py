"""Official implementation and timm: V1 and V2 have the names of this package, V3 has others."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ghostnets.models.ghostnet import STAGES

__all__ = ["BLOCKS", "V3_KEYS", "WIDE_BLOCK", "add_batch_counters", "drop_counters", "rename_v3"]

# State-dict prefixes of the bottlenecks, and of the 1x1 expansion after them.
BLOCKS: tuple[str, ...] = tuple(f"blocks.{s}.{b}" for s, stage in enumerate(STAGES) for b in range(len(stage)))
WIDE_BLOCK = f"blocks.{len(STAGES)}.0"

# GhostNetV3 of the official implementation ("bn") and timm ("bn1"): pattern -> name here. Fused names are the same.
V3_KEYS: tuple[tuple[str, str], ...] = (
    (r"\.primary_rpr_conv\.(\d+)\.conv\.", r".primary_conv.0.convs.\1.0."),
    (r"\.primary_rpr_conv\.(\d+)\.bn1?\.", r".primary_conv.0.convs.\1.1."),
    (r"\.cheap_rpr_conv\.(\d+)\.conv\.", r".cheap_operation.0.convs.\1.0."),
    (r"\.cheap_rpr_conv\.(\d+)\.bn1?\.", r".cheap_operation.0.convs.\1.1."),
    (r"\.cheap_rpr_scale\.conv\.", r".cheap_operation.0.scale.0."),
    (r"\.cheap_rpr_scale\.bn1?\.", r".cheap_operation.0.scale.1."),
    (r"\.cheap_rpr_skip\.", r".cheap_operation.0.skip."),
    (r"\.dw_rpr_conv\.(\d+)\.conv\.", r".conv_dw.convs.\1.0."),
    (r"\.dw_rpr_conv\.(\d+)\.bn1?\.", r".conv_dw.convs.\1.1."),
    (r"\.dw_rpr_scale\.conv\.", r".conv_dw.scale.0."),
    (r"\.dw_rpr_scale\.bn1?\.", r".conv_dw.scale.1."),
)

COUNTERS = ("total_ops", "total_params")  # left in the official V2 files by a profiler


def rename_v3(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of GhostNetV3 from the official implementation or timm; other keys are kept."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        for pattern, replacement in V3_KEYS:
            key, hits = re.subn(pattern, replacement, key)
            if hits:
                break
        renamed[key] = tensor
    return renamed


def drop_counters(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the profiler counters that the official V2 checkpoints contain."""
    return {key: tensor for key, tensor in state_dict.items() if key.rpartition(".")[2] not in COUNTERS}


def add_batch_counters(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add PyTorch's ``num_batches_tracked``, which other frameworks do not have, with value 0."""
    norms = [key.removesuffix("running_mean") for key in state_dict if key.endswith(".running_mean")]
    return {**state_dict, **{f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}}
