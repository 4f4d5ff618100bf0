"""Export to a ``torch.export`` program."""

import io
import warnings
from pathlib import Path

import torch

from ghostnets.artefacts import METADATA_KEY
from ghostnets.export.deployed import ExportJob, trace

__all__ = ["write"]


def write(job: ExportJob, path: Path) -> None:
    """Write a ``.pt2`` file; see ``FileFormat``."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the serializer's own internals
        torch.export.save(trace(job), buffer, extra_files={METADATA_KEY: job.description.to_json()})
    path.write_bytes(buffer.getvalue())  # torch's own writer would hide the reason of a failed write
