"""Checkpoints: saving, safe reading and strict loading, published weights, and conversion from other sources."""

from ghostnets.needs_torch import TORCH  # noqa: F401 - first, so that its absence is one sentence

# isort: split
from ghostnets.checkpoints.architecture import TASKS, build_network, task_of
from ghostnets.checkpoints.embedded import EMBEDDED_WEIGHTS, embedded_weights
from ghostnets.checkpoints.fetch import cache_path, check_reachable, download, find_cached
from ghostnets.checkpoints.hub import WEIGHTS, PublishedWeights, find_weights, find_weights_at, load_pretrained
from ghostnets.checkpoints.load import (
    load_checkpoint,
    load_weights,
    network_arguments,
    parse_checkpoint,
    read_checkpoint,
)
from ghostnets.checkpoints.pretrained import create_model
from ghostnets.checkpoints.read import WeightsFile, read_weights
from ghostnets.checkpoints.save import METADATA_KEY, Checkpoint, save_checkpoint, to_timm_state_dict
from ghostnets.checkpoints.share import from_hub, push_to_hub
from ghostnets.checkpoints.sources import SOURCE_ALIASES, SOURCES, NcnnConvolution, detect_source, load_ncnn, read_ncnn

__all__ = [
    "EMBEDDED_WEIGHTS",
    "METADATA_KEY",
    "SOURCES",
    "SOURCE_ALIASES",
    "TASKS",
    "WEIGHTS",
    "Checkpoint",
    "NcnnConvolution",
    "PublishedWeights",
    "WeightsFile",
    "build_network",
    "cache_path",
    "check_reachable",
    "create_model",
    "detect_source",
    "download",
    "embedded_weights",
    "find_cached",
    "find_weights",
    "find_weights_at",
    "from_hub",
    "load_checkpoint",
    "load_ncnn",
    "load_pretrained",
    "load_weights",
    "network_arguments",
    "parse_checkpoint",
    "push_to_hub",
    "read_checkpoint",
    "read_ncnn",
    "read_weights",
    "save_checkpoint",
    "task_of",
    "to_timm_state_dict",
]
