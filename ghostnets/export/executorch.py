"""Export to ExecuTorch: XNNPACK runs the operators that it supports, portable kernels the rest.

The program takes one image of a fixed size, because its memory is planned ahead of time. The format has no metadata, so
a constant method returns the description.
"""

import warnings
from pathlib import Path

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import require
from ghostnets.export.deployed import ExportJob, trace

__all__ = ["write"]


def write(job: ExportJob, path: Path) -> None:
    """Write an ExecuTorch program; see ``FileFormat``."""
    exir = require("executorch.exir", extra="executorch")
    xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the compiler's own internals
        program = exir.to_edge_transform_and_lower(
            trace(job),
            partitioner=[xnnpack.XnnpackPartitioner()],
            constant_methods={METADATA_KEY: job.description.to_json()},
        ).to_executorch()
    path.write_bytes(program.buffer)
