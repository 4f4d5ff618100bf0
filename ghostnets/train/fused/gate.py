"""Squeeze-and-excitation of a fused bottleneck, computed from per-image sums only.

The mean of an activated map follows from the number of values that pass the ReLU and their sum; the gradient of the
gate, from the sums of d and of d (z - mean), d being the gradient of the activated map. So neither pass stores the
gated map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ghostnets.train.fused.kernels import Map, NormGradient, finish_gradient, image_sums

__all__ = ["Gate"]


@dataclass(slots=True)
class Gate:
    """The gate of one call, with the tensors that its gradient needs.

    Attributes:
        mean: Mean of the activated maps, (N, C); a leaf of the autograd graph of ``values``.
        parameters: Weights and biases of the two linear layers, also leaves of that graph.
        values: Factor of each channel, (N, C), in [0, 1].
        passed: ``image_sums`` of each map under the gate: (2, N, C_i).
    """

    mean: Tensor
    parameters: list[Tensor]
    values: Tensor
    passed: list[Tensor]

    @classmethod
    def of(cls, hidden: Sequence[Map], betas: Sequence[Tensor], parameters: Sequence[Tensor]) -> "Gate":
        """Compute the gate of concatenated maps, whose normalisations have these ``betas``."""
        passed = [image_sums(m) for m in hidden]
        pixels = hidden[0].values.shape[1] * hidden[0].values.shape[2]
        means = [_activated_sum(m, beta, *sums) / pixels for m, beta, sums in zip(hidden, betas, passed, strict=True)]
        with torch.enable_grad():
            mean = torch.cat(means, 1).requires_grad_()
            leaves = [p.detach().requires_grad_() for p in parameters]
            reduce, reduce_bias, expand, expand_bias = leaves
            squeezed = F.relu(F.linear(mean, reduce.flatten(1), reduce_bias))
            values = F.hardsigmoid(F.linear(squeezed, expand.flatten(1), expand_bias))
        return cls(mean, leaves, values, passed)

    def apply(self, hidden: Sequence[Map]) -> list[Map]:
        """Return views of the maps that multiply by the gate when they are read."""
        values = self.values.detach()
        firsts = [sum(m.channels for m in hidden[:i]) for i in range(len(hidden))]
        return [replace(m, gate=values, gate_from=first) for m, first in zip(hidden, firsts, strict=True)]

    def backward(
        self, hidden: Sequence[Map], sums: Sequence[Tensor], betas: Sequence[Tensor], norms: Sequence[NormGradient]
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute gradients from masked sums over each image: (2, N, C_i) of d and of d (z - mean).

        Args:
            hidden: The maps as ``apply`` returned them.
            sums: The sums of each map.
            betas: Biases of the normalisations of the maps.
            norms: Gradients of the normalisations; filled in here, from the sums over all images.

        Returns:
            Contribution of the mean to the gradient of every pixel, (N, C), and gradients of the four parameters.
        """
        of_gate = torch.cat(
            [_activated_sum(m, beta, *own) for m, beta, own in zip(hidden, betas, sums, strict=True)], 1
        )
        of_mean, *of_parameters = torch.autograd.grad(
            self.values, [self.mean, *self.parameters], of_gate, retain_graph=True
        )
        offset = of_mean / (hidden[0].values.shape[1] * hidden[0].values.shape[2])
        for m, own, passed, norm in zip(hidden, sums, self.passed, norms, strict=True):
            columns = slice(m.gate_from, m.gate_from + m.channels)
            total = (self.values.detach()[:, columns] * own + offset[:, columns] * passed).double().sum(1)
            finish_gradient(m, total, norm)
        # With the strides of the parameters, like autograd's own: DistributedDataParallel requires that.
        like = [torch.empty_like(p).copy_(g) for p, g in zip(self.parameters, of_parameters, strict=True)]
        return offset, like


def _activated_sum(of: Map, beta: Tensor, plain: Tensor, products: Tensor) -> Tensor:
    """Return the sum of w y from those of w and of w (z - mean), as y = scale (z - mean) + beta."""
    assert of.statistics is not None
    return of.statistics[2] * products + beta * plain
