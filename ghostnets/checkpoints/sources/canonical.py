"""Official implementation and timm: V1 and V2 have the names of this package, V3 has others."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ghostnets.models.ghostnet import STAGES

__all__ = ["BLOCKS", "V3_KEYS", "WIDE_BLOCK", "add_batch_counters", "drop_counters", "rename_to_timm", "rename_v3"]

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

# The same from here to timm.
TIMM_V3_KEYS: tuple[tuple[str, str], ...] = tuple(
    (pattern, replacement)
    for ours, timms in [("primary_conv.0", "primary"), ("cheap_operation.0", "cheap"), ("conv_dw", "dw")]
    for pattern, replacement in [
        (rf"\.{re.escape(ours)}\.convs\.(\d+)\.0\.", rf".{timms}_rpr_conv.\1.conv."),
        (rf"\.{re.escape(ours)}\.convs\.(\d+)\.1\.", rf".{timms}_rpr_conv.\1.bn1."),
        (rf"\.{re.escape(ours)}\.scale\.0\.", f".{timms}_rpr_scale.conv."),
        (rf"\.{re.escape(ours)}\.scale\.1\.", f".{timms}_rpr_scale.bn1."),
        (rf"\.{re.escape(ours)}\.skip\.", f".{timms}_rpr_skip."),
    ]
)

COUNTERS = ("total_ops", "total_params")  # left in the official V2 files by a profiler


def rename_v3(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of GhostNetV3 from the official implementation or timm; other keys are kept."""
    return _rename(state_dict, V3_KEYS)


def rename_to_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of GhostNetV3 to those of timm; other keys are the same there."""
    return _rename(state_dict, TIMM_V3_KEYS)


def _rename(state_dict: Mapping[str, Tensor], keys: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        for pattern, replacement in keys:
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
