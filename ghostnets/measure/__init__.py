"""What a network costs. Works on any ``nn.Module``."""

from ghostnets.measure.count import Cost, LayerCost, count

__all__ = ["Cost", "LayerCost", "count"]
