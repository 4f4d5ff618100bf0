"""A plan of the engine of this package."""

from pathlib import Path

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY
from ghostnets.export.shipped import Order

__all__ = ["write"]


def write(order: Order, path: Path) -> None:
    """As ``Format.write``."""
    precision = order.description.precision
    calibration = order.calibration_batches() if precision == "int8" else None
    session = engine.compile(order.checkpoint, precision=precision, calibration=calibration, threads=1)
    session.save(path, metadata={METADATA_KEY: order.description.to_json()})
