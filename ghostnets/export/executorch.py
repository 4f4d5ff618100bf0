"""ExecuTorch, for phones and small devices: what XNNPACK knows runs there, the rest in portable operators.

The program takes one image at a time, of a fixed size, since its memory is laid out when it is written. Its format has
no place for a description, so a method of its own returns it.
"""

import warnings
from pathlib import Path

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import require
from ghostnets.export.shipped import Order, trace

__all__ = ["write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    exir = require("executorch.exir", extra="executorch")
    xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        program = exir.to_edge_transform_and_lower(
            trace(order, one_image=True),
            partitioner=[xnnpack.XnnpackPartitioner()],
            constant_methods={METADATA_KEY: order.description.to_json()},
        ).to_executorch()
    path.write_bytes(program.buffer)
