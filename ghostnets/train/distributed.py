"""Distributed data-parallel training: the processes that ``torchrun`` starts."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ghostnets.devices import select_device
from ghostnets.errors import ConfigurationError, GhostNetsError, RunError

__all__ = ["DistributedContext", "convert_sync_batchnorm", "init_distributed"]


BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
TIMEOUT = timedelta(minutes=15)  # for an unresponsive process; then all end, and torchrun restarts them

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a run, and the rank of this one; with a single process, every method is a no-op.

    Attributes:
        rank: Number of this process, from 0. Process 0 alone reads and writes the run's folder.
        world_size: Number of processes.
        device: Device of this process.
        restarts: Number of times torchrun has restarted the processes.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    restarts: int = 0

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sum each value over all processes, in float64."""
        if self.world_size == 1:
            return values
        return self.sum_tensor(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Sum a tensor, of the same shape in each, over all processes; no gradient passes."""
        if self.world_size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, items: list[T]) -> list[T]:
        """Concatenate the lists of all processes, in the order of their ranks; all get the same list."""
        if self.world_size == 1:
            return items
        parts: list[list[T]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def broadcast(self, value: Any) -> Any:
        """Broadcast the value of process 0; the values of the others are ignored."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        """Run an action on process 0 alone and broadcast its result; if it fails, it fails in all processes.

        Raises:
            RunError: In the other processes, for any ``GhostNetsError`` of process 0.
        """
        if self.world_size == 1:
            return action()
        result: T | None = None
        error: GhostNetsError | None = None
        if self.is_rank_zero:
            try:
                result = action()
            except GhostNetsError as caught:
                error = caught
        sentence = self.broadcast(None if error is None else str(error))
        if error is not None:
            raise error
        if sentence is not None:
            raise RunError(sentence)
        return cast(T, self.broadcast(result))

    def broadcast_model(self, model: nn.Module) -> None:
        """Broadcast weights and normalisation statistics of process 0; the latter differ between processes."""
        if self.world_size > 1:
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the network in ``DistributedDataParallel``, which averages gradients over all processes.

        Normalisation statistics, which training does not read, differ between processes until ``broadcast_model``.
        """
        if self.world_size == 1:
            return model
        with warnings.catch_warnings():
            # torch 2.14 has another name for broadcast_buffers, which older ones do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                model,
                device_ids=None if self.device.type == "cpu" else [self.device],
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )


@contextmanager
def init_distributed(device: str = "auto") -> Iterator[DistributedContext]:
    """Initialise the process group if torchrun started several processes: gloo on CPUs, nccl or xccl on GPUs.

    Args:
        device: Name of the device, as in ``select_device``; several processes use one GPU each.

    Raises:
        ConfigurationError: There is no such device, or several processes cannot train on it.
    """
    selected = select_device(device)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield DistributedContext(device=selected, restarts=restarts)
        return
    if selected.type not in BACKENDS:
        raise ConfigurationError(f"several processes cannot train on {selected}; use --device cpu, or one process.")
    local = selected
    if selected.type != "cpu":
        local = torch.device(selected.type, int(os.environ.get("LOCAL_RANK", 0)))
        torch.get_device_module(local.type).set_device(local)
    is_cpu = local.type == "cpu"
    dist.init_process_group(BACKENDS[local.type], device_id=None if is_cpu else local, timeout=TIMEOUT)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size(), local, restarts)
    finally:
        dist.destroy_process_group()


def convert_sync_batchnorm(model: nn.Module, distributed: DistributedContext) -> None:
    """Make batch normalisation use the images of all processes; changes the model in place, not its state dict.

    ``torch.nn.SyncBatchNorm`` runs on GPUs only; this one works on any device.
    """
    if distributed.world_size > 1:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.__class__ = _SyncBatchNorm  # same state and arguments, other forward


class _AllReduceSum(torch.autograd.Function):
    """Sum a tensor over all processes; its gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes: (N, C, H, W) or (N, C) -> same shape."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        values = x.float()  # also under autocast
        axes, shape = [0, *range(2, x.dim())], (-1, *[1] * (x.dim() - 2))
        pixels = values.new_full((1,), x.numel() / x.shape[1])
        sums = _AllReduceSum.apply(torch.cat([values.sum(axes), pixels]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        # Two passes: differences of squares lose digits.
        var = _AllReduceSum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # any number of dimensions
