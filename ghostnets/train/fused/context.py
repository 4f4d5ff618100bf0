"""The context in which layers are trained by the fused kernels."""

from collections.abc import Iterator
from contextlib import contextmanager

from ghostnets.layers import GhostBottleneck, RepConv
from ghostnets.layers.dispatch import override_forward
from ghostnets.native import TRAINING, missing_native
from ghostnets.train.fused import bottleneck, branches

__all__ = ["fused_training"]


@contextmanager
def fused_training() -> Iterator[None]:
    """Within the context, run Ghost bottlenecks and re-parameterisable convolutions by fused kernels where supported.

    Supported are modules in training mode without hooks, for float32 or float64 inputs on the CPU, outside of autocast,
    tracing and compilation, if the native module was built. A bottleneck must be that of GhostNet V1 (ratio 2, cheap
    kernels of 3 or 5, no dilation, no stochastic depth); a ``RepConv``, as in GhostNetV3, 1 x 1 or depthwise with a
    kernel of 3 or 5, without dilation. Anything else runs the regular layers. Results are the same up to rounding.
    Second derivatives are not supported.
    """
    is_built = missing_native(TRAINING) is None
    with override_forward({GhostBottleneck: bottleneck.forward, RepConv: branches.forward} if is_built else {}):
        yield
