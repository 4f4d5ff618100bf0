"""Parameter and MAC counts, profiles and interleaved timings of any ``nn.Module``."""

from ghostnets.measure.count import Cost, LayerCost, count
from ghostnets.measure.limits import MachineLimits, measure_limits
from ghostnets.measure.machine import processor_name
from ghostnets.measure.profile import ModuleProfile, Profile, profile
from ghostnets.measure.proportion import format_accuracy, format_interval, wilson_interval
from ghostnets.measure.timing import Runner, Timing, speedup, time_interleaved

__all__ = [
    "Cost",
    "LayerCost",
    "MachineLimits",
    "ModuleProfile",
    "Profile",
    "Runner",
    "Timing",
    "count",
    "format_accuracy",
    "format_interval",
    "measure_limits",
    "processor_name",
    "profile",
    "speedup",
    "time_interleaved",
    "wilson_interval",
]
