"""Matching of a state dict to a network: reported adaptations, and errors that suggest a matching network."""

import logging
import math
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress import reparameterize
from ghostnets.errors import CheckpointError
from ghostnets.models import Backbone, GhostNetV3, Network, create_model, list_models
from ghostnets.terminal import format_names

__all__ = ["adapt", "check_fit", "is_merged", "network_shapes", "stem_name"]

logger = logging.getLogger("ghostnets.checkpoints")

Shapes = dict[str, tuple[int, ...]]
COUNTER = "num_batches_tracked"
WIDTHS = [step / 20 for step in range(1, 81)]  # width multipliers tried for a file that no registered network fits
# Prefix of registered names (the longest match applies) -> part of a tensor's name that only their networks have.
FAMILY_MARKS = {
    "ghostnet_": ".ghost1.primary_conv.",
    "ghostnet_100_d_li14": ".conv.3.primary_conv.",
    "ghostnetv2": ".short_conv.",
    "ghostnetv3": ".short_conv.",
    "g_ghost": ".merge.",
    "ghost_resnet": ".convs.0.primary_conv.",
    "resnet": ".convs.0.primary_conv.",
    "ghost_vgg": "blocks.0.0.primary_conv.",
    "vgg": "blocks.0.0.primary_conv.",
}
# Part of a tensor's name that marks a transformed weight -> state of the network, and the call that undoes it.
OTHER_FORMS = {
    ".parametrizations.": "has a parametrization; call torch.nn.utils.parametrize.remove_parametrizations",
    ".weight_g": "has weight normalisation; call torch.nn.utils.remove_weight_norm",
    ".weight_mask": "is pruned; call torch.nn.utils.prune.remove",
    ".zero_point": "is quantized; take the float network",
}
WIDTH_FAMILIES = ("ghostnet_100", "ghostnetv2_100", "ghostnetv3_100")


def network_shapes(network: nn.Module) -> Shapes:
    """Shapes of a network's state dict by name; of a backbone, those of the network that it was taken from."""
    if isinstance(network, Backbone):
        return network.network_shapes
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def stem_name(network: nn.Module) -> str:
    """Name of the weight of the first convolution, (C, in_chans, k, k)."""
    return next(iter(network.state_dict()))


def adapt(model: nn.Module, state_dict: Mapping[str, Tensor], path: Path, *, replace_head: bool) -> dict[str, Tensor]:
    """Adapt a state dict to a network without changing its function; every adaptation is logged as a warning.

    - Counters ``num_batches_tracked`` that the file lacks are 0, and those of shape (1,) are reshaped, without a
      warning: no output depends on them.
    - The stem of RGB weights is summed over its input channels for one channel, or repeated and scaled for others, as
      timm does.
    - Tensors of layers that a backbone omits are dropped.
    - With ``replace_head``, the network's own classifier is kept; of a backbone's file, everything after the backbone.

    Args:
        model: Network or backbone; not modified.
        state_dict: Converted tensors of the file.
        path: Path of the file, for messages.
        replace_head: Keep the network's own classifier.
    """
    expected, adapted = model.state_dict(), dict(state_dict)
    for name, tensor in expected.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf == COUNTER and name not in adapted and f"{prefix}.running_mean" in adapted:
            adapted[name] = torch.zeros_like(tensor)
        elif leaf == COUNTER and name in adapted and adapted[name].numel() == 1:
            adapted[name] = adapted[name].reshape(tensor.shape)
    stem = stem_name(model)
    if stem in adapted and _is_rgb_stem(adapted[stem], expected[stem]):
        channels = expected[stem].shape[1]
        adapted[stem] = _adapt_stem(adapted[stem], channels)
        how = "summed over RGB" if channels == 1 else "repeated and scaled"
        logger.warning("%s: the weights of %s, for 3 input channels, are %s for %d.", path, stem, how, channels)
    if isinstance(model, Backbone):
        outside = [name for name in adapted if name not in expected and name in model.network_shapes]
        if outside:
            adapted = {name: tensor for name, tensor in adapted.items() if name not in outside}
            logger.warning("%s: left out for the backbone: %s.", path, format_names(_modules(outside), 5))
    elif replace_head and isinstance(model, Network):
        head = f"{model.classifier_name}."
        adapted = {name: tensor for name, tensor in adapted.items() if not name.startswith(head)}
        kept = {name for name in expected if name.startswith(head)}
        kept |= _modules_after_backbone(model, expected, adapted)
        if new := sorted(name for name in kept if not name.startswith(head)):
            logger.warning(
                "%s has only a backbone; new are %s and the classifier.", path, format_names(_modules(new), 5)
            )
        adapted |= {name: expected[name] for name in kept}
    return adapted


def check_fit(model: nn.Module, state_dict: Mapping[str, Tensor], path: Path, raw: Mapping[str, Tensor]) -> None:
    """Require that names and shapes of a state dict are those of the network.

    Args:
        model: Network.
        state_dict: Converted and adapted tensors.
        path: Path of the file, for the message.
        raw: Tensors under their canonical names, by which a network that fits is looked for if this one does not.

    Raises:
        CheckpointError: They differ; the message lists what differs, and names the network that fits the file.
    """
    expected = model.state_dict()
    problems = {
        "missing": sorted(expected.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - expected.keys()),
        "of another shape": [
            name for name, tensor in expected.items() if name in state_dict and state_dict[name].shape != tensor.shape
        ],
    }
    if not any(problems.values()):
        return
    head = f"{model.classifier_name}." if isinstance(model, Network) else "none"
    is_only_head = all(name.startswith(head) for names in problems.values() for name in names)
    is_backbone = isinstance(model, Network) and _is_only_backbone(model, problems)
    problems["of another shape"] = [
        f"{name} (file {tuple(state_dict[name].shape)}, network {tuple(expected[name].shape)})"
        for name in problems["of another shape"]
    ]
    found = [f"{len(names)} {kind}: {format_names(names, 5)}" for kind, names in problems.items() if names]
    if form := next((form for mark, form in OTHER_FORMS.items() if mark in " ".join(problems["unexpected"])), None):
        advice = f"the saved network {form}, then save its state dict"
    elif is_only_head or is_backbone:
        advice = (
            "build the network with the arguments of the network that the file was saved from, or pass"
            " replace_head=True to keep the network's own " + ("classifier" if is_only_head else "head, which is new")
        )
    else:
        advice = _advice(raw)
    raise CheckpointError(f"{path} does not fit the network {type(model).__name__}: {'; '.join(found)}; {advice}.")


def _advice(raw: Mapping[str, Tensor]) -> str:
    """Suggest the network that fits a file, if there is one."""
    fitting = _find_fitting({name: tuple(tensor.shape) for name, tensor in raw.items()})
    if fitting is not None:
        return f"it fits {fitting}; build that network"
    advice = "build the network with the arguments of the network that the file was saved from"
    return advice if _candidates(raw) else f"the file is of a network that this package does not have; {advice}"


def _find_fitting(shapes: Shapes) -> str | None:
    """Registered network that fits a file except for classes and input channels, or an expression that builds it."""
    candidates = _candidates(shapes)
    is_training_form = any(".convs." in name for name in shapes)
    for name in candidates:
        if _has_shapes(_shapes(name), shapes):
            return name
        is_merged_form = name.startswith("ghostnetv3") and not is_training_form
        if is_merged_form and _has_shapes(_shapes(name, merged=True), shapes):
            return f"{name} in merged form: load_checkpoint({name!r}, path) or reparameterize(create_model({name!r}))"
    for name in (name for name in WIDTH_FAMILIES if name in candidates):
        if _names(shapes) == _names(_shapes(name)):
            for width in WIDTHS:
                if _has_shapes(_shapes(name, width=width), shapes):
                    return f"create_model({name!r}, width={width:g})"
    return None


def _candidates(names: Collection[str]) -> list[str]:
    """Preselect networks by tensor names, since building the whole registry takes seconds."""
    present = {prefix for prefix, mark in FAMILY_MARKS.items() if any(mark in name for name in names)}
    return [
        name
        for name in list_models()
        if max((prefix for prefix in FAMILY_MARKS if name.startswith(prefix)), key=len) in present
    ]


@cache
def _shapes(name: str, *, width: float | None = None, merged: bool = False) -> Shapes:
    arguments: dict[str, Any] = {} if width is None else {"width": width}
    with torch.device("meta"):
        network = create_model(name, **arguments)
        return network_shapes(reparameterize(network) if merged else network)


def _names(shapes: Shapes) -> set[str]:
    return {name for name in shapes if not name.endswith(f".{COUNTER}")}


def _has_shapes(network: Shapes, file: Shapes) -> bool:
    """Whether a file has the shapes of a network, whatever the number of classes and of input channels."""
    stem, classifier = next(iter(network)), list(network)[-2:]  # the classifier is registered last

    def reduced(shapes: Shapes, name: str) -> tuple[int, ...]:
        shape = shapes[name]
        if name == stem:
            return (*shape[:1], *shape[2:])
        return shape[1:] if name in classifier else shape

    names = _names(network)
    return names == _names(file) and all(reduced(network, name) == reduced(file, name) for name in names)


def _is_rgb_stem(weight: Tensor, expected: Tensor) -> bool:
    own, other = list(expected.shape), list(weight.shape)
    return len(own) == len(other) == 4 and other[1] == 3 != own[1] and own[:1] + own[2:] == other[:1] + other[2:]


def _adapt_stem(weight: Tensor, channels: int) -> Tensor:
    """Convert the weight of the stem, (C, 3, k, k) -> (C, channels, k, k), as ``timm.models.adapt_input_conv``."""
    wide = weight.float()
    if channels == 1:
        return wide.sum(1, keepdim=True).to(weight.dtype)
    repeated = wide.repeat(1, math.ceil(channels / 3), 1, 1)[:, :channels]
    return (repeated * (3 / channels)).to(weight.dtype)


def _modules_after_backbone(
    model: Network, expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]
) -> set[str]:
    """Names of the modules after the backbone, if the file has none of them."""
    after = expected.keys() - Backbone(model).state_dict().keys()
    missing = expected.keys() - state_dict.keys()
    head = f"{model.classifier_name}."
    modules = {name.rpartition(".")[0] for name in after & missing if not name.startswith(head)}
    present = {name.rpartition(".")[0] for name in after & state_dict.keys()}
    return set() if modules & present else {name for name in after if name.rpartition(".")[0] in modules}


def _is_only_backbone(model: Network, problems: Mapping[str, list[str]]) -> bool:
    """Whether a file is complete except for the modules after the backbone."""
    backbone = Backbone(model).state_dict().keys()
    is_without_more = not problems["unexpected"] and not problems["of another shape"]
    return is_without_more and not any(name in backbone for name in problems["missing"])


def _modules(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def is_merged(network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file has the merged form of GhostNetV3, which ``compress.reparameterize`` returns."""
    return isinstance(network, GhostNetV3) and bool(tensors) and not any(".convs." in name for name in tensors)
