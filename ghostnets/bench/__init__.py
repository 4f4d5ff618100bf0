"""Networks and ways to run them, side by side in one run."""

from ghostnets.bench.backends import BACKENDS, PRECISIONS
from ghostnets.bench.compare import Comparison, Row, Settings, compare

__all__ = ["BACKENDS", "PRECISIONS", "Comparison", "Row", "Settings", "compare"]
