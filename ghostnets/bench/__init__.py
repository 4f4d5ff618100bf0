"""Benchmark networks across inference backends, interleaved in one run."""

import ghostnets.needs_torch  # noqa: F401
from ghostnets.bench.backends import BACKENDS, PRECISIONS
from ghostnets.bench.benchmark import BenchmarkResult, BenchmarkRow, BenchmarkSettings, run_benchmark

__all__ = ["BACKENDS", "PRECISIONS", "BenchmarkResult", "BenchmarkRow", "BenchmarkSettings", "run_benchmark"]
