"""Several processes that train one network: started by ``torchrun``, joined by torch.distributed."""

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

from ghostnets.errors import ConfigurationError, GhostNetsError, RunError

__all__ = ["DistributedContext", "convert_sync_batchnorm", "init_distributed"]


TIMEOUT = timedelta(minutes=15)  # with a process that does not answer; then all end, for torchrun to start anew

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a run; alone, everything here does nothing.

    Attributes:
        rank: Number of this process, from 0. Process 0 alone reads and writes the run's folder.
        size: Number of processes.
        device: Where this process computes.
        restarts: How often torchrun has started the processes anew.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    restarts: int = 0

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The sums over all processes, in float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def broadcast(self, value: Any) -> Any:
        """What process 0 gives; the others' values are ignored."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        """What process 0 gets by an action that it alone does; where that fails, it fails for all.

        Raises:
            RunError: In the other processes, whatever error of this package process 0 met.
        """
        if self.size == 1:
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
        """Weights and statistics of process 0; during training each has normalisation statistics of its own."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The network, with gradients that are the means over all processes.

        Normalisation statistics stay each process's own (training does not read them) until ``broadcast_model``.
        """
        if self.size == 1:
            return model
        with warnings.catch_warnings():
            # torch 2.14 has another name for broadcast_buffers, which older ones do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )


@contextmanager
def init_distributed(device: str = "auto") -> Iterator[DistributedContext]:
    """Join the processes that torchrun started (gloo on CPUs, nccl on GPUs), or stay alone.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU where there is one.

    Raises:
        ConfigurationError: A GPU is asked for, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device is cuda, but torch finds no GPU here; leave it out, or choose cpu.")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield DistributedContext(device=local, restarts=restarts)
        return
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=local if on_gpu else None, timeout=TIMEOUT)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size(), local, restarts)
    finally:
        dist.destroy_process_group()


def convert_sync_batchnorm(model: nn.Module, distributed: DistributedContext) -> None:
    """Makes batch normalisation work over the images of all processes; the model is changed, not its state dict.

    torch's own ``SyncBatchNorm`` runs on GPUs alone, so this is done by sums on any device.
    """
    if distributed.size > 1:
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SyncBatchNorm  # the same state and arguments, other arithmetic


class _AllReduceSum(torch.autograd.Function):
    """The sum of a tensor over all processes; each tensor's gradient is then the sum of all gradients of the sum."""

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
    """Batch normalisation by sums over all processes: (N, C, H, W) -> same shape."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        values = x.float()  # also under autocast
        pixels = values.new_full((1,), x.numel() / x.shape[1])
        sums = _AllReduceSum.apply(torch.cat([values.sum((0, 2, 3)), pixels]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        var = (
            _AllReduceSum.apply(centred.square().sum((0, 2, 3))) / count
        )  # two passes: differences of squares lose digits
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
