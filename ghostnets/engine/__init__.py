"""The fused CPU engine, which runs a GhostNet in one pass through the caches. Importable without torch."""

from ghostnets.engine.choice import PrecisionChoice
from ghostnets.engine.compiler import compile, load, run_int8, time_layers  # noqa: A004
from ghostnets.engine.layer_times import LayerProfile, ideal_seconds
from ghostnets.engine.session import TIMED_SIZE, Session

__all__ = [
    "TIMED_SIZE",
    "LayerProfile",
    "PrecisionChoice",
    "Session",
    "compile",
    "ideal_seconds",
    "load",
    "run_int8",
    "time_layers",
]
