"""Distillation of the original network into a compressed one, on unlabelled images."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress.blocks import find_blocks
from ghostnets.compress.fit import output_error, outputs_of
from ghostnets.compress.healing import Healing
from ghostnets.compress.network_io import (
    check_finite,
    check_network,
    check_run,
    check_trainable,
    join_batches,
    read_batches,
    tensors_of,
)
from ghostnets.errors import ConfigurationError
from ghostnets.layers.copying import copy_module

__all__ = ["HealReport", "heal"]

SAVE_EVERY = 50  # steps
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
        is_better: Whether the trained network is returned. It is unless its agreement, or, without one or where that is
            equal, its error is worse than before; then the network is returned as it was given.
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
    images: Tensor | Iterable[Tensor],
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
    the training, and the better one is returned. Parameters that require no gradient are not trained.

    Args:
        model: Compressed network, of ``ghostify`` of the original; left unchanged.
        original: The original network; left unchanged.
        images: Preprocessed images, (N, C, H, W), or batches of such, all of one size.
        labels: Classes, int64 (N,), -1 where unknown; they add a cross entropy to the end-to-end loss.
        held_out: Preprocessed images that judge, (M, C, H, W); by default every eighth of ``images``, on which the
            network is then not trained.
        block_steps: Number of block-wise steps.
        steps: Number of end-to-end steps.
        batch_size: Images of a step.
        lr: Peak learning rate of Adam, with cosine decay in each of the two phases.
        crop_size: Height and width of random crops of the images, which cost less than whole ones.
        seed: Seed of the order, of crops and of flips, which depend only on it and on the step.
        state: File of the training state; training resumes from it if it exists and is of the same networks, images,
            labels and arguments.
        on_step: Called with the number of finished steps.

    Returns:
        The trained network, or the given one if that is better, as a copy in evaluation mode; and a report.

    Raises:
        ConfigurationError: An argument is out of range, a network does not run on the images or is in float16, or there
            are too few images to hold one out.
        RunError: The state is of another network or another training.
        StorageError: The state cannot be written.
    """
    for network in (model, original):
        check_network(network)
    images = _join(images)
    if not len(images) or min(block_steps, steps) < 0 or batch_size < 1 or lr <= 0:
        raise ConfigurationError(
            f"there are {len(images)} images, {block_steps} and {steps} steps, {batch_size} images per step and a"
            f" learning rate of {lr}; images, batch size and learning rate must be above 0, steps at least 0."
        )
    _check_images(images, labels, crop_size)
    if held_out is None:
        is_held = torch.arange(len(images), device="cpu") % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
        images, held_out, labels = images[~is_held], images[is_held], None if labels is None else labels[~is_held]
    if not len(held_out):
        raise ConfigurationError(
            f"there are {len(images)} images and none that judges; pass at least {HOLD_OUT_EVERY}, or held_out."
        )
    given, made, teacher = (copy_module(network).eval() for network in (model, model, original))
    _check_fit(made, teacher, (images, held_out), labels, crop_size)
    blocks = find_blocks(made, teacher, images[:1])
    common: dict[str, Any] = {"batch_size": batch_size, "lr": lr, "labels": labels, "seed": seed}
    run = Healing(made, teacher, images, blocks=blocks, steps=(block_steps, steps), crop_size=crop_size, **common)
    run.resume(state)
    while run.step < block_steps + steps:
        run.advance()
        if state is not None and (run.step % SAVE_EVERY == 0 or run.step == block_steps + steps):
            run.save(state)
        on_step(run.step)
    errors, agreement = _judge(teacher, (given, made), held_out, batch_size)
    before, after = zip(agreement or (0.0, 0.0), (-error for error in errors), strict=True)
    is_better = after >= before
    report = HealReport(
        tuple(blocks), (block_steps, steps), tuple(run.losses), len(held_out), errors, agreement, is_better
    )
    return made if is_better else given, report


def _check_images(images: Tensor, labels: Tensor | None, crop_size: int | None) -> None:
    """Check that crops fit into the images, and that each image has a label if there are any."""
    if crop_size is not None and not 1 <= crop_size <= min(images.shape[2:]):
        raise ConfigurationError(
            f"crop_size is {crop_size}, but the images have {images.shape[2]} x {images.shape[3]} pixels; it must be"
            " from 1 to their shorter side."
        )
    if labels is not None and labels.shape != (len(images),):
        raise ConfigurationError(
            f"labels have the shape {tuple(labels.shape)}, but there are {len(images)} images; pass one class for each."
        )


def _check_fit(
    made: nn.Module, teacher: nn.Module, images: tuple[Tensor, Tensor], labels: Tensor | None, crop_size: int | None
) -> None:
    """Check that both networks run on the images and return the same shapes, and that labels belong to logits."""
    sample = images[0][:2]
    for network in (made, teacher):
        check_run(network, sample)
        if crop_size is not None:
            check_run(network, sample[:, :, :crop_size, :crop_size].clone())
    check_trainable(teacher, sample)
    shapes = [[output.shape[1:] for output in _outputs(network, sample)] for network in (made, teacher)]
    if shapes[0] != shapes[1]:
        raise ConfigurationError(
            f"the outputs of {type(made).__name__} have other shapes than those of {type(teacher).__name__}; pass the"
            " network that it was made from."
        )
    logits = _logits(teacher, sample)
    if labels is not None and logits is None:
        raise ConfigurationError(f"labels are given, but {type(teacher).__name__} returns no logits (N, C); omit them.")
    if labels is not None and logits is not None:
        classes = logits.shape[1]
        if labels.dtype != torch.int64 or int(labels.min()) < -1 or int(labels.max()) >= classes:
            raise ConfigurationError(
                f"labels are {labels.dtype} from {labels.min()} to {labels.max()}, but {type(teacher).__name__} has"
                f" {classes} classes; pass int64 from 0 to {classes - 1}, -1 where unknown."
            )
    for each in images:
        check_finite(each)


def _join(images: Tensor | Iterable[Tensor]) -> Tensor:
    """Return images or batches of such as one tensor."""
    if isinstance(images, Tensor) and images.dim() == 4:
        return images
    return join_batches(read_batches(images, 1))


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    return tensors_of(model(images))


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor | None:
    """Return the logits of a network, (N, C) with at least two classes, or None if it returns something else."""
    outputs = model(images)
    return outputs if isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1 else None


@torch.no_grad()
def _judge(
    original: nn.Module, networks: tuple[nn.Module, nn.Module], images: Tensor, batch_size: int
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Return errors and agreement of two networks, as ``HealReport`` defines them."""
    batches = images.split(batch_size)
    expected, *found = (torch.cat([outputs_of(run, x) for x in batches]) for run in (original, *networks))
    errors = output_error(found[0], expected), output_error(found[1], expected)
    if _logits(original, images[:1]) is None:
        return errors, None
    same = [float((outputs.argmax(1) == expected.argmax(1)).double().mean()) for outputs in found]
    return errors, (same[0], same[1])
