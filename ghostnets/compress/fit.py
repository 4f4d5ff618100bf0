"""Fit the changes of a network to the maps of the original, streaming over images."""

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.least_squares import PairStatistics
from ghostnets.compress.moments import Moments, predict_channels
from ghostnets.compress.sites import Site
from ghostnets.compress.surgery import Change, insert_ghost, merge_channels
from ghostnets.layers import GhostConv2d

__all__ = ["apply_fitted_change", "collect_maps", "fit_change", "measure_moments", "output_error", "outputs_of"]

ACTIVATIONS = {"": lambda x: x, "relu": F.relu, "relu6": F.relu6}


class _Reached(Exception):  # noqa: N818
    """Raised to stop a forward pass at the layer of interest."""


@torch.no_grad()
def collect_activation(model: nn.Module, name: str, x: Tensor, *, is_input: bool) -> Tensor:
    """Return the input or output of a layer; later layers are not run."""
    found: list[Tensor] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found.append(output)
        raise _Reached

    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(before) if is_input else layer.register_forward_hook(after)
    with temporary_hooks([handle]), suppress(_Reached):
        model(x)
    return found[0]


def collect_maps(model: nn.Module, site: Site, kind: str, x: Tensor) -> Tensor:
    """Return the feature maps that a change of a site selects from and predicts.

    For ``"merge"`` these are the inputs of the consumer, otherwise the maps of the site after normalisation and
    activation.
    """
    if kind == "merge":
        return collect_activation(model, site.consumer, x, is_input=True)
    layer = model.get_submodule(site.norm or site.conv)
    maps = collect_activation(model, site.norm or site.conv, x, is_input=False)
    return maps if hasattr(layer, "act") and site.norm else ACTIVATIONS[site.act](maps)


def measure_moments(model: nn.Module, sites: list[tuple[Site, str]], batches: Iterable[Tensor]) -> list[Moments]:
    """Measure the moments of the maps of several (site, kind of change) pairs in one pass over the images."""
    moments: list[Moments | None] = [None] * len(sites)

    def add(index: int, maps: Tensor) -> None:
        site = moments[index] or Moments(maps.shape[1], 0)
        site.add(maps, maps[:, :0])
        moments[index] = site

    handles = []
    for index, (site, kind) in enumerate(sites):
        if kind == "merge":
            layer = model.get_submodule(site.consumer)
            handles.append(layer.register_forward_pre_hook(lambda _, inputs, i=index: add(i, inputs[0])))
        else:
            layer = model.get_submodule(site.norm or site.conv)
            act = ACTIVATIONS["" if site.norm and hasattr(layer, "act") else site.act]
            handles.append(layer.register_forward_hook(lambda _, inputs, output, i=index, a=act: add(i, a(output))))
    with temporary_hooks(handles), torch.no_grad():
        for batch in batches:
            model(batch)
    return [site for site in moments if site is not None]


def apply_fitted_change(model: nn.Module, change: Change, kept: Tensor, moments: Moments) -> None:
    """Make a change in place, fitted to the moments of the network's own maps; ghosts use 1x1 kernels.

    Args:
        model: Network.
        change: Change, as ``describe_change`` returns it.
        kept: Kept channels or intrinsic maps, int64.
        moments: Moments of the site's maps.
    """
    covariance, mean = moments.covariance(), moments.x_total / moments.count
    if change["kind"] == "merge":
        matrix = predict_channels(covariance, covariance, kept)
        merge_channels(model, change, kept, matrix, mean - matrix @ mean[kept])
        return
    ghost = insert_ghost(model, change, kept)
    others = _others(kept, len(mean))
    cross = covariance[:, others]
    if change["mix"]:
        matrix = predict_channels(covariance, cross, kept)
        _set_ghosts(ghost, matrix, mean[others] - matrix @ mean[kept])
        return
    variance = covariance.diagonal()[kept].clamp(min=torch.finfo(torch.float32).tiny)
    source = (cross[kept].square() / variance[:, None]).argmax(0)
    slope = cross[kept].gather(0, source[None])[0] / variance[source]
    with torch.no_grad():
        ghost.source.copy_(source)
        _set_centre(ghost, slope, mean[others] - slope * mean[kept][source])


def fit_change(
    model: nn.Module, original: nn.Module, site: Site, change: Change, kept: Tensor, batches: Iterable[Tensor]
) -> None:
    """Make a change in place, fitted to reproduce the original's maps from this network's activations.

    Args:
        model: Network in which all earlier changes have been made.
        original: Network before any change.
        site: Convolution to change.
        change: Change, as ``describe_change`` returns it.
        kept: Kept channels or intrinsic maps, int64.
        batches: Images, (N, C, H, W) each; read twice for ghosts.
    """
    kind = "merge" if change["kind"] == "merge" else "ghost"
    moments: Moments | None = None
    for batch in batches:
        now, target = collect_maps(model, site, kind, batch), collect_maps(original, site, kind, batch)
        moments = moments or Moments(now.shape[1], target.shape[1])
        moments.add(now, target)
    assert moments is not None
    if change["kind"] == "merge":
        merge_channels(model, change, kept, *moments.solve(kept))
        return
    apply_fitted_change(model, change, kept, moments)
    ghost = model.get_submodule(site.conv)
    assert isinstance(ghost, GhostConv2d)
    others = _others(kept, ghost.out_channels)
    if change["mix"]:
        matrix, offset = moments.solve(kept)
        _set_ghosts(ghost, matrix[others], offset[others])
    _fit_filters(ghost, model, original, site, batches)


def _fit_filters(
    ghost: GhostConv2d, model: nn.Module, original: nn.Module, site: Site, batches: Iterable[Tensor]
) -> None:
    """Fit the depthwise filters of the ghosts to the maps of the original network."""
    size = ghost.cheap.kernel_size[0]
    others = ghost.order.argsort()[ghost.primary.out_channels :].cpu()
    statistics: PairStatistics | None = None
    number = len(others)
    for batch in batches:
        target = collect_maps(original, site, "ghost", batch)[:, others]
        with torch.no_grad():
            x = collect_activation(model, site.conv, batch, is_input=True)
            sources = ghost.sources(ghost.act(ghost.primary(x)))
        if statistics is None:
            pairs = torch.arange(number), torch.arange(number, 2 * number)
            statistics = PairStatistics(*pairs, (target.shape[2], target.shape[3]), size)
        statistics.add(torch.cat([sources, target], 1).cpu())
    assert statistics is not None
    _, filters, biases = statistics.fit(size)
    assert ghost.cheap.bias is not None
    with torch.no_grad():
        ghost.cheap.weight.copy_(filters[:, None])
        ghost.cheap.bias.copy_(biases)


def _set_ghosts(ghost: GhostConv2d, matrix: Tensor, offset: Tensor) -> None:
    assert ghost.mix is not None
    with torch.no_grad():
        ghost.mix.weight.copy_(matrix[:, :, None, None])
    _set_centre(ghost, torch.ones(len(offset)), offset)


def _set_centre(ghost: GhostConv2d, slope: Tensor, offset: Tensor) -> None:
    """Make each depthwise filter a multiplication by ``slope`` and an addition of ``offset``."""
    assert ghost.cheap.bias is not None
    centre = ghost.cheap.kernel_size[0] // 2
    with torch.no_grad():
        ghost.cheap.weight.zero_()
        ghost.cheap.weight[:, 0, centre, centre] = slope.to(ghost.cheap.weight)
        ghost.cheap.bias.copy_(offset)


def _others(kept: Tensor, channels: int) -> Tensor:
    is_other = torch.ones(channels, dtype=torch.bool)
    is_other[kept] = False
    return is_other.nonzero().flatten()


def outputs_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return all outputs of a network, flattened to (N, ...)."""
    with torch.no_grad():
        outputs = model(x)
    return torch.cat([output.flatten(1).float() for output in _tensors(outputs)], 1)


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def output_error(got: Tensor, expected: Tensor) -> float:
    """Return the squared error of outputs as a share of their variance over the images; infinite if not finite."""
    if not torch.isfinite(got).all():
        return math.inf
    variance = (expected - expected.mean(0)).square().sum() if len(expected) > 1 else expected.square().sum()
    return float((got - expected).square().sum() / variance.clamp(min=torch.finfo(torch.float32).tiny))
