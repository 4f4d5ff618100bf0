"""Distillation of the original network into a compressed one, on unlabelled images."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress.blocks import find_blocks, recorded
from ghostnets.compress.fit import output_error, outputs_of
from ghostnets.compress.layer_inputs import output_tensors
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.files import write_atomically
from ghostnets.layers.copying import copy_module

__all__ = ["HealReport", "Healing", "heal"]

SAVE_EVERY = 50  # steps
WARMUP = 0.05  # share of the steps
CLIP_NORM = 1.0
HOLD_OUT_EVERY = 8  # every eighth image judges, where none are given for it


@dataclass(frozen=True)
class HealReport:
    """Report of ``heal``.

    Attributes:
        blocks: Names of the blocks trained separately.
        steps: Steps of block-wise and of end-to-end training.
        losses: Loss of each step, block-wise then end to end: squared errors as a share of the targets' variance.
        held_out: Number of images that judge.
        errors: Squared error of the outputs on these as a share of their variance over the images, before and after.
        agreement: Share of these whose class is the original's, before and after; None if the outputs are not logits
            (N, C) of at least two classes.
        is_better: Whether the trained network is returned. It is unless its agreement, or without one its error, is
            worse than before; then the network is returned as it was given.
    """

    blocks: tuple[str, ...]
    steps: tuple[int, int]
    losses: tuple[float, ...]
    held_out: int
    errors: tuple[float, float]
    agreement: tuple[float, float] | None
    is_better: bool


def heal(
    model: nn.Module,
    original: nn.Module,
    images: Tensor,
    *,
    labels: Tensor | None = None,
    held_out: Tensor | None = None,
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
    normalisation statistics stay frozen. At last both networks are compared with the original on images held out from
    the training, and the better one is returned.

    Args:
        model: Compressed network, of ``ghostify`` of the original; left unchanged.
        original: The original network; left unchanged.
        images: Preprocessed images, (N, C, H, W).
        labels: Classes, int64 (N,), -1 where unknown; they add a cross entropy to the end-to-end loss.
        held_out: Preprocessed images that judge, (M, C, H, W); by default every eighth of ``images``, on which the
            network is then not trained.
        block_steps: Number of block-wise steps.
        steps: Number of end-to-end steps.
        batch_size: Images of a step.
        lr: Peak learning rate of Adam, with cosine decay in each of the two phases.
        crop_size: Height and width of random crops of the images, which cost less than whole ones.
        seed: Seed of the order, of crops and of flips, which depend only on it and on the step.
        state: File of the training state; training resumes from it if it exists.
        on_step: Called with the number of finished steps.

    Returns:
        The trained network, or the given one if that is better, as a copy in evaluation mode; and a report.

    Raises:
        ConfigurationError: An argument is out of range, or there are too few images to hold one out.
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
    if held_out is None:
        is_held = torch.arange(len(images), device="cpu") % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
        images, held_out, labels = images[~is_held], images[is_held], None if labels is None else labels[~is_held]
    if not len(held_out):
        raise ConfigurationError(
            f"there are {len(images)} images and none that judges; pass at least {HOLD_OUT_EVERY}, or held_out."
        )
    given, made, teacher = (copy_module(network).eval() for network in (model, model, original))
    blocks = find_blocks(made, teacher, images[:1])
    run = Healing(made, teacher, blocks, images, labels, (block_steps, steps), batch_size, lr, seed, crop_size)
    run.resume(state)
    while run.step < block_steps + steps:
        run.advance()
        if state is not None and (run.step % SAVE_EVERY == 0 or run.step == block_steps + steps):
            run.save(state)
        on_step(run.step)
    errors, agreement = _judge(teacher, (given, made), held_out, batch_size)
    is_better = errors[1] <= errors[0] if agreement is None else agreement[1] >= agreement[0]
    report = HealReport(
        tuple(blocks), (block_steps, steps), tuple(run.losses), len(held_out), errors, agreement, is_better
    )
    return made if is_better else given, report


def _judge(
    original: nn.Module, networks: tuple[nn.Module, nn.Module], images: Tensor, batch_size: int
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Return errors and agreement of two networks, as ``HealReport`` defines them."""
    expected, *found = (
        torch.cat([outputs_of(network, x) for x in images.split(batch_size)]) for network in (original, *networks)
    )
    errors = output_error(found[0], expected), output_error(found[1], expected)
    with torch.no_grad():
        sample = original(images[:1])
    if not isinstance(sample, Tensor) or sample.dim() != 2 or sample.shape[1] < 2:
        return errors, None
    same = [float((outputs.argmax(1) == expected.argmax(1)).double().mean()) for outputs in found]
    return errors, (same[0], same[1])


class Healing:
    """Training loop of ``heal`` with its resumable state.

    Args:
        model: Network to train, in evaluation mode, changed in place.
        teacher: The original network.
        blocks: Names of the blocks that ``find_blocks`` finds.
        images: As for ``heal``; so are labels, batch_size, lr, seed and crop_size.
        steps: Steps block by block, and end to end.
    """

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
        pairs = zip(output_tensors(outputs), output_tensors(expected), strict=True)
        loss = torch.stack([_error(*pair) for pair in pairs]).mean()
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
