"""Pictures and pages that show what a network does and costs."""

from ghostnets.explain.anatomy import GhostMaps, ghost_maps
from ghostnets.explain.redundancy import LayerRedundancy, Redundancy, study
from ghostnets.explain.report import ClassRow, Curve, Example, RunReport, write_report
from ghostnets.explain.savings import Savings, StageCost, ghost_savings

__all__ = [
    "ClassRow",
    "Curve",
    "Example",
    "GhostMaps",
    "LayerRedundancy",
    "Redundancy",
    "RunReport",
    "Savings",
    "StageCost",
    "ghost_maps",
    "ghost_savings",
    "study",
    "write_report",
]
