"""Pictures and pages that show what a network does and costs."""

from ghostnets.explain.anatomy import CheapKernels, GhostMaps, cheap_kernels, ghost_maps
from ghostnets.explain.attention import AttentionMaps, class_activation_map, dfc_attention
from ghostnets.explain.comparison import ComparedRun, write_comparison
from ghostnets.explain.explanation import Explanation, write_explanation
from ghostnets.explain.ghost_ablation import Ablation, GhostAblation, ghost_ablation
from ghostnets.explain.progress import RunProgress, write_progress
from ghostnets.explain.redundancy import LayerRedundancy, Redundancy, measure_redundancy
from ghostnets.explain.report import ClassRow, Curve, Example, RunReport, write_report
from ghostnets.explain.savings import MeasuredSpeed, Savings, StageCost, ghost_savings, measure_speed

__all__ = [
    "Ablation",
    "AttentionMaps",
    "CheapKernels",
    "ClassRow",
    "ComparedRun",
    "Curve",
    "Example",
    "Explanation",
    "GhostAblation",
    "GhostMaps",
    "LayerRedundancy",
    "MeasuredSpeed",
    "Redundancy",
    "RunProgress",
    "RunReport",
    "Savings",
    "StageCost",
    "cheap_kernels",
    "class_activation_map",
    "dfc_attention",
    "ghost_ablation",
    "ghost_maps",
    "ghost_savings",
    "measure_redundancy",
    "measure_speed",
    "write_comparison",
    "write_explanation",
    "write_progress",
    "write_report",
]
