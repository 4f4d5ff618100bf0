"""One training step: forward, backward, optimizer update."""

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
from ghostnets.errors import RunError
from ghostnets.models.segmentation import SegmentationNetwork
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.detection import SupervisedDetector, unpack_targets
from ghostnets.train.diagnose import diagnose_loss
from ghostnets.train.distill import Distillation
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.frozen import IdentityPreprocessing
from ghostnets.train.fused import fused_training
from ghostnets.train.hardware import free_memory, is_out_of_memory, resolve_precision
from ghostnets.train.mixing import Mixing
from ghostnets.train.multi_label import count_exact, multi_label_losses
from ghostnets.train.recipe import Recipe
from ghostnets.train.segmentation import segmentation_losses

__all__ = ["StepTotals", "TrainingStep"]

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepTotals:
    """Sums over the images of a step, in all processes.

    Attributes:
        loss: Sum of the losses; if it is not finite, the weights were not updated.
        correct: Number of correct predictions; a multi-label image counts if all labels are correct, and the class of a
            mixed image is that with the largest share.
        num_seen: Number of images.
        num_stop_requests: Number of processes that were asked to stop.
    """

    loss: float
    correct: int
    num_seen: int
    num_stop_requests: int

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)


class TrainingStep:
    """A callable training step.

    Args:
        trained: Module that is trained: the network, the network with a projection, or its classifier.
        optimizer: Optimizer of the weights of ``trained``.
        recipe: The recipe.
        preprocessing: Preprocessing of the network.
        distributed: The processes.
        mixing: Mixup and cutmix; None for neither.
        distillation: Distillation loss; None for none.
        class_weights: Factor of the loss of each class, float32 (num_classes,); None for equal ones.
        multi_label: Whether images have any number of classes: binary cross-entropy instead of cross-entropy.
        after_update: Callback after each optimizer update.
        on_message: Callback for messages to the user.

    Attributes:
        accumulate: Accumulation steps into which a batch is divided; doubled when the device runs out of memory.
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
        class_weights: Tensor | None = None,
        multi_label: bool = False,
        after_update: Callable[[], None] | None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        self.optimizer, self.recipe, self.preprocessing, self.distributed = (
            optimizer,
            recipe,
            preprocessing,
            distributed,
        )
        self.mixing, self.distillation, self.after_update = mixing, distillation, after_update
        self.class_weights = None if class_weights is None else class_weights.to(distributed.device)
        self.multi_label = multi_label
        self.on_message, self.accumulate = on_message, recipe.accumulate
        self.precision = resolve_precision(recipe.precision, distributed.device)
        self.weights = [weight for weight in trained.parameters() if weight.requires_grad]
        self.trained = trained
        self.detector = trained.detector if isinstance(trained, SupervisedDetector) else None
        self.parallel = distributed.wrap(trained)
        self.forward: Any = torch.compile(self.parallel) if recipe.compile else self.parallel
        self.scaler = torch.amp.GradScaler(distributed.device.type, enabled=self.precision == "fp16")
        self.last_inputs: Tensor | None = None

    def __call__(self, batch: Batch, *, batch_size: int, seed: int, stop: bool) -> StepTotals:
        """Train on this process's share of a batch; the weights are not updated if the loss is not finite.

        Args:
            batch: Share of this process.
            batch_size: Number of images of the batch in all processes.
            seed: Seed of dropout, stochastic depth and mixing.
            stop: Whether this process was asked to stop; counted over all processes.
        """
        while (sums := self._accumulate_gradients(batch, batch_size, seed)) is None:
            self._halve_micro_batches(len(batch.labels))
        loss_sum, correct = sums
        loss, total_correct, num_seen, num_stop_requests = self.distributed.sum(
            [loss_sum, correct, len(batch.labels), float(stop)]
        )
        if math.isfinite(loss):
            self._update()
        return StepTotals(loss, int(total_correct), int(num_seen), int(num_stop_requests))

    def _accumulate_gradients(self, batch: Batch, batch_size: int, seed: int) -> tuple[float, int] | None:
        """Compute the gradients; return the sum of the losses and the number of correct predictions.

        None if the device ran out of memory; in distributed training, where the other processes cannot repeat the step,
        that is an error.
        """
        torch.manual_seed(seed)
        self.trained.train()
        loss_sum = torch.zeros((), dtype=torch.float64)
        correct = torch.zeros((), dtype=torch.int64)
        self.optimizer.zero_grad(set_to_none=True)
        split = zip(*(tensor.tensor_split(self.accumulate) for tensor in batch), strict=True)
        micro_batches = [Batch(*tensors) for tensors in split]
        try:
            for number, micro_batch in enumerate(micro_batches, 1):
                # Gradients accumulate over micro-batches and are averaged over processes once, with the last.
                defers_sync = number < len(micro_batches) and isinstance(self.parallel, DistributedDataParallel)
                with self.parallel.no_sync() if defers_sync else nullcontext():  # type: ignore[operator]
                    losses, num_correct = self._losses(micro_batch)
                    # DDP averages over processes, which makes this the mean over the whole batch.
                    mean = losses.sum() * (self.distributed.world_size / batch_size)
                    self.scaler.scale(mean).backward()
                loss_sum += losses.detach().sum().cpu().double()
                correct += num_correct.cpu()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self.distributed.world_size > 1:
                raise RunError(
                    f"process {self.distributed.rank} ran out of memory with {len(micro_batches[0].labels)} images at a"
                    f" time; resume or start again with --accumulate {2 * self.accumulate}."
                ) from error
            return None
        return loss_sum.item(), int(correct.item())

    def _halve_micro_batches(self, images: int) -> None:
        """Divide batches into twice as many micro-batches, after the device ran out of memory."""
        self.last_inputs = None
        self.optimizer.zero_grad(set_to_none=True)
        free_memory(self.distributed.device)
        before, self.accumulate = -(-images // self.accumulate), 2 * self.accumulate
        if images < 2 * self.accumulate:
            raise RunError(
                f"the device ran out of memory with {before} images at a time, and batch normalisation needs two;"
                " start again with a smaller --image-size or --model."
            )
        if self.on_message is not None:
            self.on_message(
                f"out of memory with {before} images at a time: from here on {-(-images // self.accumulate)}, with the"
                f" gradients of {self.accumulate} accumulated for the same batch (--accumulate {self.accumulate})"
            )

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses, (B,), and the number of correct predictions."""
        device = self.distributed.device
        pixels, target = (tensor.to(device, non_blocking=True) for tensor in (batch.pixels, batch.labels))
        if self.mixing is not None:
            pixels, target = self.mixing(pixels.float(), target)
        inputs = self.preprocessing.normalize(pixels)
        if not self.recipe.channels_last:
            inputs = inputs.contiguous()
        self.last_inputs = inputs
        autocast = AUTOCAST.get(self.precision)
        if self.detector is not None:
            with torch.autocast(device.type, autocast) if autocast else nullcontext(), fused_training():
                total = self.forward(inputs, unpack_targets(target, inputs.shape[-1])).total
            return total.expand(len(inputs)), torch.zeros((), dtype=torch.int64)  # a loss of the batch, not of images
        with torch.autocast(device.type, autocast) if autocast else nullcontext():
            with fused_training():
                output = self.forward(inputs)
            logits, features = output if isinstance(output, tuple) else (output, None)
            smoothing = self.recipe.label_smoothing
            if isinstance(self.trained, SegmentationNetwork):
                losses = segmentation_losses(logits.float(), target, label_smoothing=smoothing)
                return losses, torch.zeros((), dtype=torch.int64)  # an image is not correct or wrong
            if self.multi_label:
                losses = multi_label_losses(logits.float(), target, label_smoothing=smoothing)
                return losses, count_exact(logits.detach(), target)
            losses = F.cross_entropy(logits.float(), target, reduction="none", label_smoothing=smoothing)
            if self.class_weights is not None:
                weights = self.class_weights
                losses = losses * (weights[target] if target.ndim == 1 else target.float() @ weights)
            if self.distillation is not None:
                distill_losses = self.distillation.losses(pixels, batch.indices, logits, features)
                losses = losses + self.recipe.distill_weight * distill_losses
        classes = target if target.ndim == 1 else target.argmax(1)
        return losses, (logits.argmax(1) == classes).sum()

    def _update(self) -> None:
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.weights, self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.after_update is not None:
            self.after_update()

    def diagnose(self) -> str:
        """Explain, in a clause without full stop, why the last loss was not finite."""
        # In distributed training another process could wait for this one inside the network.
        if self.distributed.world_size > 1 or self.last_inputs is None:
            return "one of the processes computed a non-finite loss"
        autocast = AUTOCAST.get(self.precision)
        with torch.autocast(self.distributed.device.type, autocast) if autocast else nullcontext():
            return diagnose_loss(self.detector or self.trained, self.last_inputs)
