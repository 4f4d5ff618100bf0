"""The fused CPU engine, which runs a GhostNet in one pass through the caches. Importing it loads no torch."""

from ghostnets.engine.layer_times import LayerProfile, ideal_seconds
from ghostnets.engine.session import Session, compile, load  # noqa: A004

__all__ = ["LayerProfile", "Session", "compile", "ideal_seconds", "load"]
