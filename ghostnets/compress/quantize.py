"""Quantisation: a network whose int8 files lose less, and the layers that these keep in float32."""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress.equalize import bias_of, equalize, find_norms, find_pairs
from ghostnets.compress.fit import output_error, outputs_of
from ghostnets.compress.healing import Healing
from ghostnets.compress.hooks import hooked
from ghostnets.compress.network_io import (
    check_finite,
    check_network,
    check_run,
    check_trainable,
    flatten_outputs,
    join_batches,
    read_batches,
)
from ghostnets.compress.rounding import METHODS, Ranges, check_weights, find_ranges, quantizable_layers, simulated
from ghostnets.errors import ConfigurationError
from ghostnets.layers.copying import copy_module
from ghostnets.measure import count

__all__ = ["Int8Runner", "LayerSensitivity", "QuantizationReport", "quantize"]

Int8Runner = Callable[[nn.Module, Sequence[Tensor], Collection[str], Tensor], Tensor]
"""Function that runs a network in int8: network, batches to find ranges on, layers in float32, images (N, C, H, W) to
outputs (N, ...)."""

HOLD_OUT_EVERY = 4  # every fourth image is held out to evaluate each step
MIN_IMAGES = 8
BATCH = 16
MAX_PROBES = 16  # of the images that judge: those on which the error of each layer is measured
MAX_CORRECTED = 32  # images that biases are corrected on; all their maps are in memory at a time
MIN_DAMAGE = 0.05  # share of the sum of all layers' errors from which a layer is worth keeping


@dataclass(frozen=True)
class LayerSensitivity:
    """Error that a single layer causes in int8.

    Attributes:
        layer: Name of the convolution or linear layer.
        damage: Squared error of the network's output as a share of its variance over the images.
        macs: Multiply-adds of the layer for one image.
    """

    layer: str
    damage: float
    macs: int


@dataclass(frozen=True)
class QuantizationReport:
    """Report of ``quantize``.

    Attributes:
        float_layers: Layers to keep in float32, the most sensitive first.
        float_share: Share of the multiply-adds that these have.
        errors: Error of the network's output with all layers in int8 (``"plain"``) and after each step that was
            taken, simulated or of ``run_int8``, on the images that judge: squared, as a share of the output's variance;
            each image counts at most as much as if its outputs were the mean of all.
        sensitivity: Layers in order of execution, after equalisation.
        steps: What was done, and what was tried but did not lower the error.
        images: Number of images fitted to, and of those that judge.
    """

    float_layers: tuple[str, ...]
    float_share: float
    errors: dict[str, float]
    sensitivity: tuple[LayerSensitivity, ...]
    steps: tuple[str, ...]
    images: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def quantize(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    *,
    method: str = "percentile",
    float_share: float = 0.1,
    steps: int = 0,
    lr: float = 1e-5,
    run_int8: Int8Runner | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> tuple[nn.Module, QuantizationReport]:
    """Prepare a network for int8: equalise channels, choose the layers that stay in float32, correct biases, train.

    The result is a float32 network of the same class with the same keys. Its weights and biases are changed so that
    int8, in any runtime with a scale for each output channel of a weight, changes its outputs less. int8 is simulated
    in torch: rounded weights, and rounded inputs of each convolution and linear layer. Each step is kept only if it
    lowers the error on images that it was not fitted to.

    Args:
        model: Any network that takes one tensor; not changed.
        images: Unlabelled images of the kind that the network is used on, preprocessed, (N, C, H, W), or batches of
            them; three quarters are fitted to, every fourth judges. Some hundred are enough.
        method: How ranges follow from images: ``"percentile"``, the percentiles 0.01 and 99.99 of each, or
            ``"minmax"``.
        float_share: Largest share of the multiply-adds that layers in float32 may have; 0 keeps none.
        steps: Steps of quantisation-aware training after that: the original is distilled into simulated int8, whose
            rounding passes gradients unchanged, on 16 images fitted to at a time, flipped at random.
        lr: Peak learning rate of this training.
        run_int8: Judges each step by the int8 of a runtime instead of the simulated one, such as
            ``ghostnets.engine.run_int8``; single layers are always simulated.
        on_stage: Callback with a description of what begins.

    Returns:
        The new network, in evaluation mode, and the report. Give ``report.float_layers`` to ``engine.compile``, or
        store it in a checkpoint (``Checkpoint.float_layers``), which exports respect.

    Raises:
        ConfigurationError: An argument is out of range, there are too few images, or the network has no layer.
    """
    if method not in METHODS:
        raise ConfigurationError(f"method is {method!r}; it must be {' or '.join(METHODS)}.")
    if not 0 <= float_share < 1:
        raise ConfigurationError(
            f"float_share is {float_share}; it must be from 0 to below 1, a share of multiply-adds."
        )
    if steps < 0 or lr <= 0:
        raise ConfigurationError(f"steps is {steps} and lr {lr}; they must be at least 0, and above 0.")
    check_network(model)
    fitted, judging = _split(images)
    made = copy_module(model).eval()
    check_run(made, judging[:2])
    if steps:
        check_trainable(made, judging[:2])
    quantizer = _Quantizer(made, fitted, judging, method, run_int8, on_stage or (lambda stage: None))
    return quantizer.run(float_share, steps, lr)


def _split(images: Tensor | Iterable[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return the batches to fit to, and the images held out for evaluation."""
    batches = list(read_batches(images, BATCH))
    count = sum(map(len, batches))
    if count < MIN_IMAGES:
        raise ConfigurationError(f"there are {count} images; pass at least {MIN_IMAGES}, better a few hundred.")
    position, fitted, judging = 0, [], []
    for batch in batches:
        check_finite(batch)
        judges = (torch.arange(position, position + len(batch)) % HOLD_OUT_EVERY) == 0
        fitted.append(batch[~judges])
        judging.append(batch[judges])
        position += len(batch)
    return [batch for batch in fitted if len(batch)], join_batches(judging)


class _Quantizer:
    def __init__(
        self,
        model: nn.Module,
        fitted: Sequence[Tensor],
        judging: Tensor,
        method: str,
        run_int8: Int8Runner | None,
        notify: Callable[[str], None],
    ) -> None:
        self.model, self.fitted, self.judging, self.method, self.notify = model, fitted, judging, method, notify
        self.run_int8 = run_int8
        self.layers = quantizable_layers(model, judging[:1])
        if not self.layers:
            raise ConfigurationError(f"{type(model).__name__} has no nn.Conv2d or nn.Linear that runs once.")
        check_weights(model, self.layers)
        self.expected = _outputs_of(model, judging)
        self.steps: list[str] = []
        self.errors: dict[str, float] = {}

    def run(self, float_share: float, steps: int, lr: float) -> tuple[nn.Module, QuantizationReport]:
        original = copy_module(self.model)
        self.notify("finding ranges")
        ranges = self._ranges()
        self.errors["plain"] = self._judge(ranges)
        ranges = self._equalize(ranges)
        macs, whole = self._macs()
        sensitivity = self._sensitivity(ranges, macs)
        kept, share = _choose_floats(sensitivity, float_share, whole)
        if kept:
            others = {name: bounds for name, bounds in ranges.items() if name not in kept}
            error, limit = self._judge(others), min(self.errors.values())
            if error < limit:
                ranges = others
                self._note("sensitive layers in float32", error)
            else:
                kept, share = [], 0.0
                self.steps.append(f"no layers in float32: the error would be {error:.4g} instead of {limit:.4g}")
        self._correct_biases(ranges)
        if steps:
            self._train(original, ranges, steps, lr)
        counts = sum(map(len, self.fitted)), len(self.judging)
        report = QuantizationReport(tuple(kept), share, self.errors, sensitivity, tuple(self.steps), counts)
        return self.model, report

    def _ranges(self) -> dict[str, tuple[float, float]]:
        return find_ranges(self.model, self.fitted, self.layers, self.method)

    def _judge(self, ranges: Ranges) -> float:
        """Return the error of int8 with these ranges, layers without one in float32, on the images held out."""
        if self.run_int8 is None:
            with simulated(self.model, ranges):
                outputs = _outputs_of(self.model, self.judging)
        else:
            floats = [name for name in self.layers if name not in ranges]
            outputs = flatten_outputs(self.run_int8(self.model, self.fitted, floats, self.judging))
        return _capped_error(outputs, self.expected)

    def _note(self, step: str, error: float) -> None:
        self.errors[step] = error
        self.steps.append(step)

    def _equalize(self, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        pairs = [pair for pair in find_pairs(self.model) if {pair.first, pair.second} <= set(self.layers)]
        if not pairs:
            self.steps.append("no equalisation: torch.fx finds no two layers with ReLU alone between them")
            return ranges
        self.notify("equalising channels")
        before = copy.deepcopy(self.model.state_dict())
        equalize(self.model, pairs, self.fitted)
        found = self._ranges()
        error, limit = self._judge(found), min(self.errors.values())
        drift = output_error(_outputs_of(self.model, self.judging), self.expected)
        if error < limit and drift < 0.1 * error:
            self._note("equalisation", error)
            return found
        self.model.load_state_dict(before)
        self.steps.append(
            f"no equalisation: of {len(pairs)} pairs, the error would be {error:.4g} instead of {limit:.4g}"
        )
        return ranges

    def _macs(self) -> tuple[dict[str, int], int]:
        """Return the multiply-adds of each layer, and of the network."""
        costs = count(self.model, tuple(self.judging.shape[1:]))
        by_layer = {name: sum(layer.macs for layer in costs.layers if layer.name == name) for name in self.layers}
        return by_layer, costs.macs

    def _sensitivity(self, ranges: Ranges, macs: dict[str, int]) -> tuple[LayerSensitivity, ...]:
        found = []
        probes = self.judging[:: math.ceil(len(self.judging) / MAX_PROBES)]
        expected = outputs_of(self.model, probes)
        for number, name in enumerate(self.layers, 1):
            self.notify(f"measuring layer {number} of {len(self.layers)}")
            with simulated(self.model, {name: ranges[name]}):
                error = output_error(outputs_of(self.model, probes), expected)
            found.append(LayerSensitivity(name, error, macs[name]))
        return tuple(found)

    def _correct_biases(self, ranges: Ranges) -> None:
        """Add the mean error of each output channel to its bias, from front to back, in one pass over some images.

        The outputs of a layer are corrected as soon as they are computed, so the layers after it see what they will
        see (empirical bias correction, Nagel et al.).
        """
        self.notify("correcting biases")
        x = torch.cat(list(self.fitted))[:: max(1, math.ceil(sum(map(len, self.fitted)) / MAX_CORRECTED))]
        norms = find_norms(self.model)
        places = {name: bias_of(self.model, name, norms) for name in ranges}
        names = [name for name in ranges if places[name] is not None]
        means: dict[str, Tensor] = {}

        def record(name: str, output: Tensor) -> None:
            means[name] = self._mean(name, output)

        with hooked(self.model, names, record):
            outputs_of(self.model, x)
        shifts: dict[str, Tensor] = {}

        def correct(name: str, output: Tensor) -> Tensor:
            shifts[name] = means[name] - self._mean(name, output)
            is_conv = isinstance(self.model.get_submodule(name), nn.Conv2d)
            return output + (shifts[name][:, None, None] if is_conv else shifts[name])

        with simulated(self.model, ranges), hooked(self.model, names, correct):
            outputs_of(self.model, x)
        before = copy.deepcopy(self.model.state_dict())
        with torch.no_grad():
            for name in names:
                place = places[name]
                assert place is not None
                place[0].add_(place[1] * shifts[name])
        self._keep_better("bias correction", ranges, before)

    def _keep_better(self, step: str, ranges: Ranges, before: dict[str, Any]) -> None:
        """Note a step that lowered the error, or restore the weights before it."""
        error, limit = self._judge(ranges), min(self.errors.values())
        if error < limit:
            self._note(step, error)
            return
        self.model.load_state_dict(before)
        self.steps.append(f"no {step}: the error would be {error:.4g} instead of {limit:.4g}")

    def _train(self, original: nn.Module, ranges: Ranges, steps: int, lr: float) -> None:
        """Distil the original into the network in simulated int8 (quantisation-aware training)."""
        before = copy.deepcopy(self.model.state_dict())
        images = torch.cat(list(self.fitted))
        run = Healing(self.model, original, images, blocks=(), steps=(0, steps), batch_size=BATCH, lr=lr)
        with simulated(self.model, ranges):
            for step in range(1, steps + 1):
                self.notify(f"training in int8, step {step} of {steps}")
                run.advance()
        self._keep_better("training", ranges, before)

    def _mean(self, name: str, output: Tensor) -> Tensor:
        """Return the mean of each channel, (C,), of a convolution's maps (N, C, H, W) or a linear layer's (..., C)."""
        channel = 1 if isinstance(self.model.get_submodule(name), nn.Conv2d) else output.dim() - 1
        return output.mean([axis for axis in range(output.dim()) if axis != channel])


def _capped_error(got: Tensor, expected: Tensor) -> float:
    """Return the mean error of outputs (N, ...), as ``QuantizationReport`` defines it; infinite if not finite."""
    if not torch.isfinite(got).all():
        return math.inf
    variance = (expected - expected.mean(0)).flatten(1).square().sum(1).mean().clamp(min=1e-30)
    return float(((got - expected).flatten(1).square().sum(1) / variance).clamp(max=1).mean())


def _outputs_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return all outputs of a network, (N, ...), a few images at a time."""
    return torch.cat([outputs_of(model, batch) for batch in images.split(BATCH)])


def _choose_floats(sensitivity: Sequence[LayerSensitivity], float_share: float, macs: int) -> tuple[list[str], float]:
    """Choose the layers with the largest errors, within a share of the network's multiply-adds."""
    total = sum(layer.damage for layer in sensitivity)
    kept, share = [], 0.0
    for layer in sorted(sensitivity, key=lambda layer: -layer.damage):
        if layer.damage < MIN_DAMAGE * total:
            break
        if share + layer.macs / macs <= float_share:
            kept.append(layer.layer)
            share += layer.macs / macs
    return kept, share
