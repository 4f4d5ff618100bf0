"""What a network costs. Works on any ``nn.Module``."""

from ghostnets.measure.count import Cost, LayerCost, count
from ghostnets.measure.machine import processor_name

__all__ = ["Cost", "LayerCost", "count", "processor_name"]
