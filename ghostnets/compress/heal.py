"""Distillation of the original network into a compressed one, on unlabelled images."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.files import write_atomically
from ghostnets.layers.copying import copy_module

__all__ = ["HealReport", "heal"]

SAVE_EVERY = 50  # steps
WARMUP = 0.05  # share of the steps
CLIP_NORM = 1.0


@dataclass(frozen=True)
class HealReport:
    """Report of ``heal``.

    Attributes:
        blocks: Names of the blocks trained separately.
        steps: Steps of block-wise and of end-to-end training.
        losses: Loss of each step, block-wise then end to end: squared errors as a share of the targets' variance.
    """

    blocks: tuple[str, ...]
    steps: tuple[int, int]
    losses: tuple[float, ...]


def heal(
    model: nn.Module,
    original: nn.Module,
    images: Tensor,
    *,
    labels: Tensor | None = None,
    block_steps: int = 100,
    steps: int = 200,
    batch_size: int = 16,
    lr: float = 2e-4,
    crop_size: int | None = None,
    seed: int = 0,
    state: str | os.PathLike[str] | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> tuple[nn.Module, HealReport]:
    """Train a compressed network to reproduce the outputs of the original.

    First block by block: each block that contains changed layers (a module that returns maps of the same shape in both
    networks) learns to turn the original's input of the block into its output, all blocks at once, without gradients
    between them. Then end to end, on the outputs of the network and of these blocks. Images are flipped at random;
    normalisation statistics stay frozen.

    Args:
        model: Compressed network, of ``ghostify`` of the original; left unchanged.
        original: The original network; left unchanged.
        images: Preprocessed images, (N, C, H, W).
        labels: Classes, int64 (N,), -1 where unknown; they add a cross entropy to the end-to-end loss.
        block_steps: Number of block-wise steps.
        steps: Number of end-to-end steps.
        batch_size: Images of a step.
        lr: Peak learning rate of Adam, with cosine decay in each of the two phases.
        crop_size: Height and width of random crops of the images, which cost less than whole ones.
        seed: Seed of the order, of crops and of flips, which depend only on it and on the step.
        state: File of the training state; training resumes from it if it exists.
        on_step: Called with the number of finished steps.

    Returns:
        The trained network, in evaluation mode, and a report.

    Raises:
        ConfigurationError: An argument is out of range.
        RunError: The state is of another network or another training.
        StorageError: The state cannot be written.
    """
    if not len(images) or min(block_steps, steps) < 0 or batch_size < 1 or lr <= 0:
        raise ConfigurationError(
            f"there are {len(images)} images, {block_steps} and {steps} steps, {batch_size} images per step and a"
            f" learning rate of {lr}; images, batch size and learning rate must be above 0, steps at least 0."
        )
    if crop_size is not None and not 1 <= crop_size <= min(images.shape[2:]):
        raise ConfigurationError(
            f"crop_size is {crop_size}, but the images have {images.shape[2]} x {images.shape[3]} pixels; it must be"
            " from 1 to their shorter side."
        )
    made, teacher = copy_module(model).eval(), copy_module(original).eval()
    blocks = _find_blocks(made, teacher, images[:1])
    run = _Healing(made, teacher, blocks, images, labels, (block_steps, steps), batch_size, lr, seed, crop_size)
    run.resume(state)
    while run.step < block_steps + steps:
        run.advance()
        if state is not None and (run.step % SAVE_EVERY == 0 or run.step == block_steps + steps):
            run.save(state)
        on_step(run.step)
    return made.eval(), HealReport(tuple(blocks), (block_steps, steps), tuple(run.losses))


class _Healing:
    """Training loop of ``heal`` with its resumable state."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        blocks: list[str],
        images: Tensor,
        labels: Tensor | None,
        steps: tuple[int, int],
        batch_size: int,
        lr: float,
        seed: int,
        crop_size: int | None,
    ) -> None:
        self.model, self.teacher, self.blocks, self.images, self.labels = model, teacher, blocks, images, labels
        self.steps, self.batch_size, self.lr, self.seed = steps, batch_size, lr, seed
        self.parameters = [parameter for parameter in model.parameters() if parameter.dtype.is_floating_point]
        self.optimizer = torch.optim.Adam(self.parameters, lr)
        self.step, self.losses = 0, list[float]()
        self.crop_size = crop_size

    @property
    def identity(self) -> dict[str, Any]:
        """Values that must match a saved state to resume from it."""
        return {
            "images": list(self.images.shape),
            "steps": list(self.steps),
            "batch_size": self.batch_size,
            "lr": self.lr,
            "crop_size": self.crop_size,
            "seed": self.seed,
            "has_labels": self.labels is not None,
        }

    def resume(self, path: str | os.PathLike[str] | None) -> None:
        """Resume from a saved state, if there is one."""
        if path is None or not Path(path).exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            if state["identity"] != self.identity:
                changed = sorted(key for key, value in self.identity.items() if state["identity"].get(key) != value)
                raise RunError(
                    f"{path} is the state of another training (other {', '.join(changed)}); pass its arguments, or"
                    " another file."
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
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
            self.optimizer.step()
        self.losses.append(loss.item())
        self.step += 1

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
        with torch.no_grad(), _recorded(self.teacher, self.blocks) as found:
            self.teacher(x)
        losses = []
        for name in self.blocks:
            inputs, target = found[name]
            losses.append(_error(self.model.get_submodule(name)(*(i.clone() for i in inputs)), target))
        return torch.stack(losses).mean() if losses else x.new_zeros(())

    def _whole_loss(self, x: Tensor, labels: Tensor | None) -> Tensor:
        with torch.no_grad(), _recorded(self.teacher, self.blocks) as targets:
            expected = self.teacher(x)
        with _recorded(self.model, self.blocks) as found:
            outputs = self.model(x)
        loss = _error(outputs, expected)
        if self.blocks:
            loss = loss + torch.stack([_error(found[name][1], targets[name][1]) for name in self.blocks]).mean()
        if labels is not None and (labels >= 0).any():
            loss = loss + F.cross_entropy(outputs, labels, ignore_index=-1)
        return loss


def _error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error as a share of the target's variance over images and pixels, channel by channel."""
    axes = [axis for axis in range(target.dim()) if axis != 1]
    variance = (target - target.mean(axes, keepdim=True)).square().mean() if len(target) > 1 else target.square().mean()
    return (output - target).square().mean() / variance.clamp(min=1e-12)


@contextmanager
def _recorded(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, tuple[tuple[Tensor, ...], Tensor]]]:
    """Record inputs and output of modules, copied, as activations may work in place."""
    found: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    before: dict[str, tuple[Tensor, ...]] = {}
    handles = []
    for name in names:
        module = model.get_submodule(name)
        handles.append(
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: before.update({name: tuple(i.clone() for i in inputs)})
            )
        )
        handles.append(
            module.register_forward_hook(
                lambda _, inputs, output, name=name: found.update({name: (before[name], output.clone())})
            )
        )
    with temporary_hooks(handles):
        yield found


def _find_blocks(model: nn.Module, original: nn.Module, x: Tensor) -> list[str]:
    """Find the innermost modules around changed layers that return one tensor of the same shape in both networks."""
    kept = {name: type(module) for name, module in original.named_modules()}
    changed = {name for name, tensor in model.state_dict().items() if _shape(original, name) != tensor.shape}
    layers = {name.rpartition(".")[0] for name in changed} | {
        name for name, module in model.named_modules() if name in kept and type(module) is not kept[name]
    }
    shapes = [_output_shapes(network, x) for network in (model, original)]
    common = {name for name, shape in shapes[0].items() if shape == shapes[1].get(name)}
    blocks = set()
    for layer in layers:
        parent = layer
        while parent := parent.rpartition(".")[0]:
            if parent in common:
                blocks.add(parent)
                break
    inside = {name for name in blocks if any(name.startswith(f"{other}.") for other in blocks)}
    return [name for name, _ in original.named_modules() if name in blocks - inside]


def _shape(model: nn.Module, name: str) -> torch.Size | None:
    tensor = model.state_dict().get(name)
    return None if tensor is None else tensor.shape


@torch.no_grad()
def _output_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[Any, ...]]:
    """Return shapes of inputs and output of each module that runs once, on tensors alone."""
    found: dict[str, list[tuple[Any, ...]]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensors = (*inputs, output)
            is_plain = len(inputs) > 0 and all(isinstance(value, Tensor) for value in tensors)
            found.setdefault(name, []).append(tuple(value.shape for value in tensors) if is_plain else ())

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    with temporary_hooks(handles):
        model(x)
    return {name: runs[0] for name, runs in found.items() if len(runs) == 1 and runs[0]}
