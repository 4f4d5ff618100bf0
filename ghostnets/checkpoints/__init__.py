"""Weights in and out: safetensors by default, nothing unpickled freely."""

from ghostnets.checkpoints.hub import WEIGHTS, PublishedWeights, download, find_weights, load_pretrained
from ghostnets.checkpoints.load import load_checkpoint, read_checkpoint, read_tensors
from ghostnets.checkpoints.pretrained import create_model
from ghostnets.checkpoints.save import Checkpoint, save_checkpoint
from ghostnets.checkpoints.sources import fold_printed_port

__all__ = [
    "WEIGHTS",
    "Checkpoint",
    "PublishedWeights",
    "create_model",
    "download",
    "find_weights",
    "fold_printed_port",
    "load_checkpoint",
    "load_pretrained",
    "read_checkpoint",
    "read_tensors",
    "save_checkpoint",
]
