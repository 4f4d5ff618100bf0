"""Export to the engine of this package."""

from pathlib import Path

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY
from ghostnets.export.deployed import ExportJob

__all__ = ["write"]


def write(job: ExportJob, path: Path) -> None:
    """Write an engine plan; see ``write_file``."""
    precision = job.description.precision
    calibration = job.calibration_batches() if precision == "int8" else None
    output = "features+logits" if job.description.has_features else "logits"
    session = engine.compile(job.checkpoint, precision=precision, output=output, calibration=calibration, threads=1)
    session.save(path, metadata={METADATA_KEY: job.description.to_json()})
