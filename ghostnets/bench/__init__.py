"""Benchmark networks across inference backends, interleaved in one run."""

from ghostnets.needs_torch import TORCH  # noqa: F401 - first, so that its absence is one sentence

# isort: split
from ghostnets.bench.backends import BACKENDS, PRECISIONS
from ghostnets.bench.benchmark import BenchmarkResult, BenchmarkRow, BenchmarkSettings, run_benchmark

__all__ = ["BACKENDS", "PRECISIONS", "BenchmarkResult", "BenchmarkRow", "BenchmarkSettings", "run_benchmark"]
