"""What goes into a network and what comes out: checks of both, and all outputs as one tensor."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ghostnets.errors import ConfigurationError

__all__ = [
    "check_finite",
    "check_network",
    "check_run",
    "check_trainable",
    "flatten_outputs",
    "float_tensors_of",
    "join_batches",
    "read_batches",
    "tensors_of",
]


def check_network(model: nn.Module) -> None:
    """Check that the layers of a network can be replaced.

    Raises:
        ConfigurationError: It is compiled, scripted, wrapped for several devices, or has lazy layers that never ran.
    """
    name, inner = type(model).__name__, ""
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigurationError(
            f"{name} is TorchScript, whose layers cannot be replaced; pass the network that it was made from."
        )
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ConfigurationError(f"{name} has weights without a shape yet; run it once, and load its weights.")
    if isinstance(getattr(model, "_orig_mod", None), nn.Module):  # of torch.compile
        inner = "_orig_mod"
    elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = "module"
    if inner:
        raise ConfigurationError(f"{name} wraps a network; pass that network, model.{inner}.")


def read_batches(images: Tensor | Iterable[Tensor], size: int) -> Sequence[Tensor]:
    """Return images as batches that can be read several times.

    Args:
        images: (N, C, H, W), or batches of such; read at once unless they are a sequence.
        size: Images of a batch, where they are one tensor.

    Raises:
        ConfigurationError: There are none, or they are something else.
    """
    if isinstance(images, Tensor):
        batches: Sequence[Any] = list(images.split(size)) if images.dim() else [images]
    else:
        batches = images if hasattr(images, "__getitem__") and hasattr(images, "__len__") else list(images)  # type: ignore[assignment]
    first = batches[0] if len(batches) else None
    if isinstance(first, list | tuple):
        raise ConfigurationError(
            "the batches are tuples, probably of images and labels; pass the images alone, such as"
            " [x for x, _ in loader]."
        )
    if not isinstance(first, Tensor) or first.dim() != 4 or not len(first):
        raise ConfigurationError("the images are not a tensor (N, C, H, W) or a sequence of such; pass at least one.")
    return batches


def join_batches(batches: Iterable[Tensor]) -> Tensor:
    """Return batches as one.

    Raises:
        ConfigurationError: Their images have several sizes.
    """
    found = list(batches)
    if len({batch.shape[1:] for batch in found}) > 1:
        raise ConfigurationError("the batches have images of several sizes; pass images of one.")
    return torch.cat(found)


def check_finite(images: Tensor) -> None:
    """Check that images have no infinite values and no NaN.

    Raises:
        ConfigurationError: They have.
    """
    if not torch.isfinite(images).all():
        raise ConfigurationError("an image has values that are infinite or not a number; leave it out.")


@torch.no_grad()
def check_run(model: nn.Module, images: Tensor) -> None:
    """Check that a network runs on images, leaves these as they are, and returns finite tensors of one entry for each.

    Two runs must return the same, or damage could not be measured.

    Args:
        model: Network in evaluation mode.
        images: Some images, (N, C, H, W).

    Raises:
        ConfigurationError: It does not.
    """
    check_finite(images)
    name, like = type(model).__name__, f"images of shape {tuple(images.shape)} and {images.dtype}"
    before = images.clone()
    try:
        outputs = model(images)
        found, again = tensors_of(outputs), tensors_of(model(before.clone()))
    except Exception as error:  # a network's own code can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"{name} does not run on {like} ({reason}); pass a network that takes one tensor, and images preprocessed"
            " for it."
        ) from error
    if not torch.equal(images, before):
        images.copy_(before)
        raise ConfigurationError(f"{name} changes its images in place; let its forward begin with x = x.clone().")
    if not found or any(output.dim() == 0 or len(output) != len(images) for output in found):
        shapes = ", ".join(str(tuple(output.shape)) for output in found) or type(outputs).__name__
        raise ConfigurationError(
            f"{name} returns {shapes} for {len(images)} images; its outputs must be tensors (N, ...), or lists, tuples"
            " or dictionaries of such."
        )
    if not torch.isfinite(flatten_outputs(outputs)).all():
        raise ConfigurationError(f"{name} returns values that are not finite for {like}; check its weights.")
    if any(not torch.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in zip(found, again, strict=True)):
        raise ConfigurationError(
            f"{name} returns other values in each run, in evaluation mode too; make its random operations, such as"
            " F.dropout, depend on self.training."
        )


@torch.no_grad()
def check_trainable(model: nn.Module, images: Tensor) -> None:
    """Check that a network returns values that gradients exist of.

    Raises:
        ConfigurationError: It returns integers alone, such as classes.
    """
    if not float_tensors_of(model(images)):
        raise ConfigurationError(
            f"{type(model).__name__} returns no floating-point numbers, so it cannot be trained; let it return logits."
        )


def flatten_outputs(outputs: Any) -> Tensor:
    """Return all tensors of a network's outputs, flattened and joined to (N, ...)."""
    parts = [_as_real(part) for part in tensors_of(outputs)]
    return torch.cat([part.flatten(1).float() if part.dim() > 1 else part[:, None].float() for part in parts], 1)


def float_tensors_of(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors of a network's outputs, complex ones as pairs of real numbers, in order."""
    return [_as_real(tensor) for tensor in tensors_of(outputs) if tensor.is_floating_point() or tensor.is_complex()]


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return all tensors of a network's outputs, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in tensors_of(value)]
