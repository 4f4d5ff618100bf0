"""Imported first by packages of which every module needs torch, so that its absence is one sentence."""

from ghostnets.errors import require

__all__ = ["TORCH"]

TORCH = require("torch", extra="torch")
