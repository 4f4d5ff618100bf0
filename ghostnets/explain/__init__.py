"""Pictures and pages that show what a network does and costs."""

from ghostnets.explain.anatomy import CheapKernels, GhostMaps, cheap_kernels, ghost_maps
from ghostnets.explain.attention import AttentionMaps, class_activation_map, dfc_attention
from ghostnets.explain.comparison import ComparedRun, write_comparison
from ghostnets.explain.cost_by_layer import LayerShare, cost_by_layer
from ghostnets.explain.explanation import Explanation, write_explanation
from ghostnets.explain.ghost_ablation import Ablation, GhostAblation, ghost_ablation
from ghostnets.explain.progress import RunProgress, write_progress
from ghostnets.explain.redundancy import LayerRedundancy, Redundancy, measure_redundancy
from ghostnets.explain.report import ClassRow, Curve, Example, RunReport, write_report
from ghostnets.explain.savings import MeasuredSpeed, Savings, StageCost, ghost_savings, measure_speed
from ghostnets.explain.switches import FILLS, ghost_count, ghost_modules, ghosts_off

__all__ = [
    "FILLS",
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
    "LayerShare",
    "MeasuredSpeed",
    "Redundancy",
    "RunProgress",
    "RunReport",
    "Savings",
    "StageCost",
    "cheap_kernels",
    "class_activation_map",
    "cost_by_layer",
    "dfc_attention",
    "ghost_ablation",
    "ghost_count",
    "ghost_maps",
    "ghost_modules",
    "ghost_savings",
    "ghosts_off",
    "measure_redundancy",
    "measure_speed",
    "write_comparison",
    "write_explanation",
    "write_progress",
    "write_report",
]
