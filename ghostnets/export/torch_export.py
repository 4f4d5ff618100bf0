"""A program of torch.export, for torch in Python and what reads its files."""

import io
import warnings
from pathlib import Path

import torch

from ghostnets.artefacts import METADATA_KEY
from ghostnets.export.shipped import Order, trace

__all__ = ["write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the writer, about itself
        torch.export.save(trace(order), buffer, extra_files={METADATA_KEY: order.description.to_json()})
    path.write_bytes(buffer.getbuffer())  # torch's own writer would hide why a write failed
