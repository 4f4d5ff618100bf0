"""Device-dependent settings of a run: precision, data-loading processes, out-of-memory errors."""

import gc
import os

import torch

from ghostnets.cores import usable_cores
from ghostnets.devices import describe_device

__all__ = ["describe_hardware", "free_memory", "is_out_of_memory", "resolve_precision", "resolve_workers"]

MAX_WORKERS = 8


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision of a recipe on a device: ``"auto"`` is mixed precision where the device is built for it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "xpu" else "float32"


def resolve_workers(workers: int | None, device: torch.device) -> int:
    """Processes that read images, for each process that trains.

    None is all cores but one, divided among the processes of this machine, at most ``MAX_WORKERS``, on an accelerator;
    and 0 on a CPU, where the cores decode between two steps.
    """
    if workers is not None:
        return workers
    if device.type == "cpu":
        return 0
    return min(MAX_WORKERS, (usable_cores() - 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def describe_hardware(device: torch.device, precision: str, workers: int) -> str | None:
    """One sentence on the chosen settings; None on a CPU in float32."""
    if device.type == "cpu" and precision == "float32" and not workers:
        return None
    arithmetic = "in float32" if precision == "float32" else f"in mixed precision ({precision})"
    return f"training on {describe_device(device)} {arithmetic}, {workers} processes read images"


def free_memory(device: torch.device) -> None:
    """Return the memory of freed tensors to the device, after an out-of-memory error was handled."""
    gc.collect()
    if device.type != "cpu":
        torch.get_device_module(device.type).empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a torch error is an out-of-memory error; MPS has no exception class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
