"""Number of processor cores that this process may use, on every system."""

import math
import os
from pathlib import Path

__all__ = ["usable_cores"]

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Number of cores: those of the process's affinity, at most the CPU limit of its container, at least 1."""
    get_affinity = getattr(os, "sched_getaffinity", None)  # missing on macOS and Windows
    cores = len(get_affinity(0)) if get_affinity else os.cpu_count() or 1
    limit = _container_limit()
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def _container_limit() -> float | None:
    """CPU limit of the control group in cores, as set by ``docker run --cpus 1.5``; None without a limit."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # cgroup v2, v1
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in names).split()
            if float(quota) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):  # no such control group; "max" for no limit
            continue
    return None
