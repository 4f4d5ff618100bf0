"""A plan of the engine of this package."""

from pathlib import Path

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY
from ghostnets.export.shipped import Order

__all__ = ["write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    session = engine.compile(order.checkpoint, precision=order.description.precision, threads=1)
    session.save(path, metadata={METADATA_KEY: order.description.to_json()})
