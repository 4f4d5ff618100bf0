"""Analyses, figures and HTML pages that show what a network computes and costs."""

from ghostnets.needs_torch import TORCH  # noqa: F401 - first, so that its absence is one sentence

# isort: split
from ghostnets.explain.anatomy import CheapKernels, GhostMaps, collect_cheap_kernels, collect_ghost_maps
from ghostnets.explain.attention import AttentionMaps, collect_dfc_attention, grad_cam
from ghostnets.explain.comparison import ComparedRun, write_comparison
from ghostnets.explain.cost_by_layer import LayerGroupCost, measure_cost_by_layer
from ghostnets.explain.explanation import Explanation, write_explanation
from ghostnets.explain.ghost_ablation import AblationResult, LayerAblation, measure_ghost_ablation
from ghostnets.explain.ghosts import FILLS, count_ghosts, disable_ghosts, find_ghost_modules
from ghostnets.explain.progress import RunProgress, write_progress
from ghostnets.explain.redundancy import LayerRedundancy, Redundancy, measure_redundancy
from ghostnets.explain.report import ClassMetrics, DataSummary, MetricCurve, PredictionExample, RunReport, write_report
from ghostnets.explain.savings import LatencyComparison, Savings, StageCost, compare_latency, compute_savings

__all__ = [
    "FILLS",
    "AblationResult",
    "AttentionMaps",
    "CheapKernels",
    "ClassMetrics",
    "ComparedRun",
    "DataSummary",
    "Explanation",
    "GhostMaps",
    "LatencyComparison",
    "LayerAblation",
    "LayerGroupCost",
    "LayerRedundancy",
    "MetricCurve",
    "PredictionExample",
    "Redundancy",
    "RunProgress",
    "RunReport",
    "Savings",
    "StageCost",
    "collect_cheap_kernels",
    "collect_dfc_attention",
    "collect_ghost_maps",
    "compare_latency",
    "compute_savings",
    "count_ghosts",
    "disable_ghosts",
    "find_ghost_modules",
    "grad_cam",
    "measure_cost_by_layer",
    "measure_ghost_ablation",
    "measure_redundancy",
    "write_comparison",
    "write_explanation",
    "write_progress",
    "write_report",
]
