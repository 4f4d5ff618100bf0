"""Weights in and out: safetensors by default, nothing unpickled freely."""

from ghostnets.checkpoints.load import load_checkpoint, read_checkpoint, read_tensors
from ghostnets.checkpoints.save import Checkpoint, save_checkpoint
from ghostnets.checkpoints.sources import fold_printed_port

__all__ = [
    "Checkpoint",
    "fold_printed_port",
    "load_checkpoint",
    "read_checkpoint",
    "read_tensors",
    "save_checkpoint",
]
