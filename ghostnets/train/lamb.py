"""The LAMB optimizer: Adam with a trust ratio per layer, which torch does not have.

You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" (arXiv 1904.00962), algorithm 2.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Lamb"]


class Lamb(Optimizer):
    """LAMB with bias correction and the identity as scaling function.

    Weights without weight decay (biases, normalisation) take the step of Adam, without a trust ratio, as in the
    implementation of the authors.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Decay of the averages of the gradient and of its square.
        eps: Term added to the root of the latter.
        weight_decay: Decoupled weight decay, added to the step.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters with their gradients."""
        assert closure is None, "closures are not supported"
        for group in self.param_groups:
            (beta1, beta2), decay = group["betas"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["step"] += 1
                steps = state["step"].item()
                mean = state["exp_avg"].lerp_(weight.grad, 1 - beta1)
                square = state["exp_avg_sq"].mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
                root = (square / (1 - beta2**steps)).sqrt_().add_(group["eps"])
                update = (mean / (1 - beta1**steps)).div_(root)
                if decay:
                    update.add_(weight, alpha=decay)
                    step_norm, weight_norm = update.norm(), weight.norm()
                    update.mul_(torch.where((step_norm > 0) & (weight_norm > 0), weight_norm / step_norm, 1.0))
                weight.sub_(update, alpha=group["lr"])
