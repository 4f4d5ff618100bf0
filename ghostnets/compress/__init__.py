"""Module in, cheaper module out."""

from ghostnets.compress.fuse import fuse, reparameterize

__all__ = ["fuse", "reparameterize"]
