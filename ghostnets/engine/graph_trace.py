"""Trace a network to a graph of steps by running its forward pass once on a proxy for the images.

torch.fx cannot trace code that reads the number of dimensions of a tensor, as BatchNorm2d does, and torch.export
specializes or constrains image sizes.
"""

from typing import Any

import torch
from torch import nn

from ghostnets.compress import reparameterize
from ghostnets.engine.graph import Recorder, Step, raise_unsupported_step
from ghostnets.engine.graph_functions import FUNCTIONS
from ghostnets.errors import EngineError

__all__ = ["trace_graph"]


def trace_graph(model: nn.Module) -> tuple[list[Step], Any]:
    """Return the steps of a network in evaluation mode, and its output: a ``TensorProxy``, or lists or dicts of them.

    Args:
        model: Network that takes images (N, C, H, W); not modified. Branches of GhostNetV3 are merged first.

    Raises:
        EngineError: A module is unsupported; the message has its path.
    """
    network = reparameterize(model).to("cpu", torch.float32).eval().requires_grad_(False)
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise_unsupported_step("", "has no convolution")
    recorder = Recorder(FUNCTIONS)
    for path, module in network.named_modules():
        module.register_forward_pre_hook(lambda *_, path=path: recorder.stack.append(path))
        module.register_forward_hook(lambda *_: _pop(recorder.stack))
    images = recorder.add("images", [], first.in_channels)
    try:
        with torch.no_grad():
            output = network(images)
    except EngineError:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0][:200]
        message = f"cannot be traced ({type(error).__name__}: {reason})"
        raise EngineError(
            f"the engine cannot compile {recorder.path or 'the network'}: it {message}; run the network in torch."
        ) from error
    return recorder.steps, output


def _pop(stack: list[str]) -> None:
    stack.pop()
