"""One step of training: forward, backward, and the weights a little better."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ghostnets.data import Batch
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.diagnose import diagnose_loss
from ghostnets.train.distill import Distillation
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.frozen import IdentityPreprocessing
from ghostnets.train.fused import fused_training
from ghostnets.train.mixing import Mixing
from ghostnets.train.recipe import Recipe

__all__ = ["StepTotals", "TrainingStep"]

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepTotals:
    """What a step saw: sums over the images of all processes.

    Attributes:
        loss: Of the losses; not finite where the weights were left as they are.
        right: Images whose class was recognised; of a mixed image the class with the largest share.
        seen: Images.
        stop: Processes that were asked to stop.
    """

    loss: float
    right: int
    seen: int
    stop: int

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)


class TrainingStep:
    """Everything that a step needs, and the state that it carries on: scaler, momentum, averages.

    Args:
        trained: What is trained: the network, or it with a projection, or its classifier alone.
        optimizer: Over the weights of ``trained``.
        recipe: The recipe.
        preprocessing: Of the network.
        distributed: The processes.
        mixing: Images in pairs.
        distillation: The teacher's part.
        after: Done after each step: the moving average goes on.
    """

    def __init__(
        self,
        trained: nn.Module,
        optimizer: Optimizer,
        recipe: Recipe,
        preprocessing: Preprocessing | IdentityPreprocessing,
        distributed: DistributedContext,
        *,
        mixing: Mixing | None,
        distillation: Distillation | None,
        after: Callable[[], None] | None,
    ) -> None:
        self.optimizer, self.recipe, self.preprocessing, self.distributed = (
            optimizer,
            recipe,
            preprocessing,
            distributed,
        )
        self.mixing, self.distillation, self.after = mixing, distillation, after
        self.weights = [weight for weight in trained.parameters() if weight.requires_grad]
        self.trained = trained
        self.parallel = distributed.parallel(trained)
        self.forward: Any = torch.compile(self.parallel) if recipe.compile else self.parallel
        self.scaler = torch.amp.GradScaler(distributed.device.type, enabled=recipe.precision == "fp16")
        self.last_inputs: Tensor | None = None

    def __call__(self, batch: Batch, *, batch_size: int, seed: int, stop: bool) -> StepTotals:
        """Goes one step on with this process's share of a batch, unless the loss is not finite.

        Args:
            batch: The share.
            batch_size: Images of the whole batch, in all processes.
            seed: Of dropout, stochastic depth and mixing.
            stop: Whether this process was asked to stop, for all to hear.
        """
        torch.manual_seed(seed)
        self.trained.train()
        loss_sum = torch.zeros((), dtype=torch.float64)
        right = torch.zeros((), dtype=torch.int64)
        self.optimizer.zero_grad(set_to_none=True)
        parts = [Batch(*part) for part in zip(*(t.tensor_split(self.recipe.accumulate) for t in batch), strict=True)]
        for number, part in enumerate(parts, 1):
            # Gradients are summed over parts here, and once, with the last, averaged over processes.
            waits = number < len(parts) and isinstance(self.parallel, DistributedDataParallel)
            with self.parallel.no_sync() if waits else nullcontext():  # type: ignore[operator]
                losses, recognised = self._losses(part)
                mean = losses.sum() * (self.distributed.size / batch_size)  # over the whole batch, once build_ema
                self.scaler.scale(mean).backward()
            loss_sum += losses.detach().sum().double().cpu()
            right += recognised.cpu()
        loss, total_right, seen, stops = self.distributed.sum(
            [loss_sum.item(), right.item(), len(batch.labels), float(stop)]
        )
        if math.isfinite(loss):
            self._update()
        return StepTotals(loss, int(total_right), int(seen), int(stops))

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses (B,), and the number of images recognised."""
        device = self.distributed.device
        pixels, target = (tensor.to(device, non_blocking=True) for tensor in (batch.pixels, batch.labels))
        if self.mixing is not None:
            pixels, target = self.mixing(pixels.float(), target)
        inputs = self.preprocessing.normalize(pixels)
        if not self.recipe.channels_last:
            inputs = inputs.contiguous()
        self.last_inputs = inputs
        autocast = AUTOCAST.get(self.recipe.precision)
        with torch.autocast(device.type, autocast) if autocast else nullcontext():
            with fused_training():
                output = self.forward(inputs)
            logits, features = output if isinstance(output, tuple) else (output, None)
            losses = F.cross_entropy(
                logits.float(), target, reduction="none", label_smoothing=self.recipe.label_smoothing
            )
            if self.distillation is not None:
                taught = self.distillation.losses(pixels, batch.indices, logits, features)
                losses = losses + self.recipe.distill_weight * taught
        classes = target if target.ndim == 1 else target.argmax(1)
        return losses, (logits.argmax(1) == classes).sum()

    def _update(self) -> None:
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.after is not None:
            self.after()

    def explain(self) -> str:
        """Half a sentence on why the last loss was not finite."""
        if self.distributed.size > 1 or self.last_inputs is None:  # others could wait for this one within the network
            return "one of the processes met a number that is not finite"
        autocast = AUTOCAST.get(self.recipe.precision)
        with torch.autocast(self.distributed.device.type, autocast) if autocast else nullcontext():
            return diagnose_loss(self.trained, self.last_inputs)
