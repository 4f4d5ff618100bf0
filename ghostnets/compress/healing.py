"""Training loop of healing, resumable with the same result."""

import functools
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress.blocks import recorded
from ghostnets.compress.network_io import float_tensors_of
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.files import write_atomically

__all__ = ["Healing"]

WARMUP = 0.05  # share of the steps
CLIP_NORM = 1.0


class Healing:
    """Training loop of ``heal`` with its resumable state.

    Args:
        model: Network to train, in evaluation mode, changed in place.
        teacher: The original network.
        images: As for ``heal``; so are labels, batch_size, lr, seed and crop_size.
        blocks: Names of the blocks that ``find_blocks`` finds.
        steps: Steps block by block, and end to end.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        images: Tensor,
        *,
        blocks: Sequence[str],
        steps: tuple[int, int],
        batch_size: int,
        lr: float,
        labels: Tensor | None = None,
        seed: int = 0,
        crop_size: int | None = None,
    ) -> None:
        self.model, self.teacher, self.blocks, self.images, self.labels = model, teacher, blocks, images, labels
        self.steps, self.batch_size, self.lr, self.seed = steps, batch_size, lr, seed
        self.parameters = [p for p in model.parameters() if p.dtype.is_floating_point and p.requires_grad]
        if not self.parameters:
            raise ConfigurationError(
                f"no parameter of {type(model).__name__} requires a gradient, so there is nothing to train; call its"
                " requires_grad_() before."
            )
        if any(parameter.dtype == torch.float16 for parameter in self.parameters):
            raise ConfigurationError(
                f"{type(model).__name__} is in float16, in which training overflows; pass float32 networks and images."
            )
        self.optimizer = torch.optim.Adam(self.parameters, lr)
        self.step, self.losses = 0, list[float]()
        self.crop_size = crop_size

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Values that must match a saved state to resume from it; read before the first step."""
        return {
            "network": _digest(self.model.state_dict().values()),
            "original": _digest(self.teacher.state_dict().values()),
            "images": _digest([self.images]),
            "steps": list(self.steps),
            "batch_size": self.batch_size,
            "lr": self.lr,
            "crop_size": self.crop_size,
            "seed": self.seed,
            "labels": None if self.labels is None else _digest([self.labels]),
        }

    def resume(self, path: str | os.PathLike[str] | None) -> None:
        """Resume from a saved state, if there is one."""
        if path is None:
            return
        identity = self.identity
        if not Path(path).exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            if state["identity"] != identity:
                changed = sorted(key for key, value in identity.items() if state["identity"].get(key) != value)
                raise RunError(
                    f"{path} is the state of another training (other {', '.join(changed)}); pass its arguments, or"
                    " delete it to start over."
                )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.losses = int(state["step"]), list(state["losses"])
        except RunError:
            raise
        except Exception as error:  # torch has no common base class for damaged files
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(
                f"{path} is not the state of healing this network ({first}); delete it to start over."
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the state."""
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "losses": self.losses,
        }
        with write_atomically(path) as temporary:
            torch.save(state, temporary)

    @torch.enable_grad()
    def advance(self) -> None:
        """Run one training step."""
        by_block = self.step < self.steps[0]
        done, total = (self.step, self.steps[0]) if by_block else (self.step - self.steps[0], self.steps[1])
        if done == 0:  # end-to-end training starts with fresh optimizer moments
            self.optimizer = torch.optim.Adam(self.parameters, self.lr)
        progress = (done + 0.5) / total
        factor = min(1.0, progress / WARMUP) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        x, labels = self._batch()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._block_loss(x) if by_block else self._whole_loss(x, labels)
        if not torch.isfinite(loss):
            raise RunError(f"the loss of step {self.step + 1} is not finite; pass a lower lr than {self.lr}.")
        if loss.requires_grad:
            self._backward(loss)
            nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
            self.optimizer.step()
        self.losses.append(loss.item())
        self.step += 1

    def _backward(self, loss: Tensor) -> None:
        try:
            loss.backward()
        except RuntimeError as error:  # a network's own code can prevent it
            name, reason = type(self.model).__name__, str(error).splitlines()[0]
            raise ConfigurationError(f"{name} cannot be trained: {reason}") from error

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        number = len(self.images)
        first = self.step * self.batch_size
        positions = range(first, first + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {position // number for position in positions}}
        chosen = torch.stack([orders[position // number][position % number] for position in positions])
        generator = torch.Generator().manual_seed(hash((self.seed, self.step, 1)) % 2**63)
        flipped = torch.rand(len(chosen), generator=generator) < 0.5
        x = self.images[chosen]
        if self.crop_size is not None:
            room = torch.tensor(x.shape[2:]) - self.crop_size + 1
            corners = (torch.rand(len(x), 2, generator=generator) * room).long().tolist()
            size = self.crop_size
            x = torch.stack([image[:, i : i + size, j : j + size] for image, (i, j) in zip(x, corners, strict=True)])
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        return x, self.labels[chosen] if self.labels is not None else None

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, epoch, 0)) % 2**63)
        return torch.randperm(len(self.images), generator=generator)

    def _block_loss(self, x: Tensor) -> Tensor:
        """Sum the errors of the blocks, each run on the original's input to it."""
        with torch.no_grad(), recorded(self.teacher, self.blocks) as found:
            self.teacher(x)
        losses = []
        for name in self.blocks:
            inputs, target = found[name]
            losses.append(_error(self.model.get_submodule(name)(*(i.clone() for i in inputs)), target))
        return torch.stack(losses).mean() if losses else x.new_zeros(())

    def _whole_loss(self, x: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad(), recorded(self.teacher, self.blocks) as targets:
            expected = self.teacher(x)
        with recorded(self.model, self.blocks) as found:
            outputs = self.model(x)
        pairs = zip(float_tensors_of(outputs), float_tensors_of(expected), strict=True)
        loss = torch.stack([_error(output, target) for output, target in pairs]).mean()
        if self.blocks:
            loss = loss + torch.stack([_error(found[name][1], targets[name][1]) for name in self.blocks]).mean()
        if labels is not None and (labels >= 0).any():
            loss = loss + F.cross_entropy(outputs, labels, ignore_index=-1)
        return loss


def _digest(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error as a share of the target's variance over images and pixels, channel by channel."""
    axes = [axis for axis in range(target.dim()) if axis != 1]
    variance = (target - target.mean(axes, keepdim=True)).square().mean() if len(target) > 1 else target.square().mean()
    return (output - target).square().mean() / variance.clamp(min=1e-12)
