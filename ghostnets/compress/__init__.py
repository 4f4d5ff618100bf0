"""Fusion of layers for inference."""

from ghostnets.compress.fuse import fuse, reparameterize

__all__ = ["fuse", "reparameterize"]
