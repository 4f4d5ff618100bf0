"""Trace a network to a graph of steps by running its forward pass once on a proxy for the images.

torch.fx cannot trace code that reads the number of dimensions of a tensor, as BatchNorm2d does, and torch.export
specializes or constrains image sizes.
"""

from typing import Any

import torch
from torch import nn

from ghostnets.compress import reparameterize
from ghostnets.engine.graph import ChannelsError, Recorder, Step, raise_unsupported_step
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
    if isinstance(model, torch.jit.ScriptModule):
        raise_unsupported_step("", "is compiled by torch.jit, which hides its operations")
    network = reparameterize(model).to("cpu", torch.float32).eval().requires_grad_(False)
    widths = dict.fromkeys(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))
    if not widths:
        raise_unsupported_step("", "has no convolution")
    first_error = None
    for channels in widths:  # of the images: usually those of the first convolution
        try:
            return _trace(network, channels)
        except ChannelsError as error:
            first_error = first_error or error
    raise first_error  # type: ignore[misc]


def _trace(network: nn.Module, channels: int) -> tuple[list[Step], Any]:
    """Run a network on a proxy for images of some channels; return its steps and output."""
    recorder = Recorder(FUNCTIONS)
    hooks = []
    for path, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, path=path: recorder.stack.append(path)))
        hooks.append(module.register_forward_hook(lambda *_: _pop(recorder.stack)))
    images = recorder.add("images", [], channels)
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
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.steps, output


def _pop(stack: list[str]) -> None:
    stack.pop()
