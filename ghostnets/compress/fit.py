"""Fit the changes of a network to the maps of the original, streaming over images."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.layer_inputs import LayerInputs
from ghostnets.compress.least_squares import PairStatistics
from ghostnets.compress.moments import Moments
from ghostnets.compress.network_io import check_finite, flatten_outputs
from ghostnets.compress.sites import Site
from ghostnets.compress.surgery import Change, insert_ghost, merge_channels
from ghostnets.layers import GhostConv2d

__all__ = ["apply_fitted_change", "fit_change", "measure_moments", "output_error", "outputs_of"]

MIN_SCALE = 1e-3  # of the largest of a normalisation: below it, other maps do not determine its input
ACTIVATIONS = {"": lambda x: x, "relu": F.relu, "relu6": F.relu6}


@torch.no_grad()
def _compute_maps(model: nn.Module, site: Site, x: Tensor) -> Tensor:
    """Compute the maps of a site from the input of its convolution, as ``_complete`` does."""
    return _complete(model, site, model.get_submodule(site.conv)(x))


def _complete(model: nn.Module, site: Site, outputs: Tensor) -> Tensor:
    """Return the maps of a site from the outputs of its convolution: after its normalisation and ``Site.act``.

    Another activation inside the normalisation (timm's ``BatchNormAct2d``) is not applied: a Ghost module takes the
    place of the convolution and the normalisation, and this activation follows it.
    """
    if site.norm:
        norm = model.get_submodule(site.norm)
        assert isinstance(norm, nn.BatchNorm2d)
        outputs = nn.BatchNorm2d.forward(norm, outputs)
    return ACTIVATIONS[site.act](outputs)


def measure_moments(model: nn.Module, sites: list[tuple[Site, str]], batches: Iterable[Tensor]) -> list[Moments]:
    """Measure the moments of the maps of several (site, kind of change) pairs in one pass over the images."""
    moments: list[Moments | None] = [None] * len(sites)

    def add(index: int, maps: Tensor) -> None:
        site = moments[index] or Moments(maps.shape[1])
        site.add(maps)
        moments[index] = site

    handles = []
    for index, (site, kind) in enumerate(sites):
        if kind == "merge":
            layer = model.get_submodule(site.consumer)
            handles.append(layer.register_forward_pre_hook(lambda _, inputs, i=index: add(i, inputs[0])))
        else:
            conv = model.get_submodule(site.conv)
            handles.append(
                conv.register_forward_hook(
                    lambda _, inputs, output, i=index, s=site: add(i, _complete(model, s, output))
                )
            )
    with temporary_hooks(handles), torch.no_grad():
        for batch in batches:
            check_finite(batch)
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
    if change["kind"] == "merge":
        merge_channels(model, change, kept, *moments.solve(kept))
        return
    ghost = insert_ghost(model, change, kept)
    others = _others(kept, ghost.out_channels)
    if change["mix"]:
        matrix, offset = moments.solve(kept)
        _set_ghosts(ghost, matrix[others], offset[others])
        return
    covariance, (mean, _) = moments.covariance(), moments.means()
    cross = covariance[:, others]
    variance = covariance.diagonal()[kept].clamp(min=torch.finfo(torch.float32).tiny)
    source = (cross[kept].square() / variance[:, None]).argmax(0)
    slope = cross[kept].gather(0, source[None])[0] / variance[source]
    with torch.no_grad():
        ghost.source.copy_(source)
        _set_centre(ghost, slope, mean[others] - slope * mean[kept][source])


def fit_change(now: LayerInputs, then: LayerInputs, site: Site, change: Change, kept: Tensor) -> None:
    """Make a change in place, fitted to reproduce the original's maps from this network's activations.

    Args:
        now: Network in which all earlier changes have been made, with the images.
        then: Network before any change, with the same images.
        site: Convolution to change.
        change: Change, as ``describe_change`` returns it.
        kept: Kept channels or intrinsic maps, int64.
    """
    is_merge = change["kind"] == "merge"
    layer = site.consumer if is_merge else site.conv
    if is_merge and _is_pointwise(now.model.get_submodule(layer)):
        _fit_pointwise(now, then, change, kept)
        return
    moments: Moments | None = None
    for x, target in zip(now.at(layer), then.at(layer), strict=True):
        if not is_merge:
            x, target = _compute_maps(now.model, site, x), _compute_maps(then.model, site, target)
        moments = moments or Moments(x.shape[1], x.shape[1])
        moments.add(x, target)
    assert moments is not None
    if is_merge:
        merge_channels(now.model, change, kept, *moments.solve(kept))
        now.narrow(layer, kept)
        return
    apply_fitted_change(now.model, change, kept, moments)
    ghost = now.model.get_submodule(site.conv)
    assert isinstance(ghost, GhostConv2d)
    _fit_filters(ghost, now, then, site, _others(kept, ghost.out_channels))


def _is_pointwise(layer: nn.Module) -> bool:
    is_conv = isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride == (1, 1)
    return isinstance(layer, nn.Linear) or (is_conv and layer.padding in ((0, 0), "valid", "same"))


def _fit_pointwise(now: LayerInputs, then: LayerInputs, change: Change, kept: Tensor) -> None:
    """Merge channels before a linear layer or 1x1 convolution, and fit its weights to the original's output of it.

    Where the output is added to other maps, it is fitted to the original's sum less these maps, whose errors are
    corrected as far as its input tells them.
    """
    layer = change["consumer"]
    before, after = then.model.get_submodule(layer), now.model.get_submodule(layer)
    assert isinstance(after, nn.Conv2d | nn.Linear)
    norm, _ = now.find_shortcut(layer)
    scale = _scale(now.model.get_submodule(norm)) if norm else torch.ones(1)
    moments: Moments | None = None
    for (x, added), (x_then, added_then) in zip(now.with_shortcut(layer), then.with_shortcut(layer), strict=True):
        with torch.no_grad():
            target = before(x_then)
        if added is not None and added_then is not None and added.shape == target.shape:
            target = target + (added_then - added) / scale.view(-1, *[1] * (target.dim() - 2))
        moments = moments or Moments(x.shape[1], target.shape[1])
        moments.add(x, target)
    assert moments is not None
    matrix, offset = moments.solve(kept, after.weight.detach().flatten(1).double().cpu())
    channels = after.weight.shape[1]
    merge_channels(now.model, change, kept, torch.zeros(channels, len(kept)), torch.zeros(channels))
    fitted = now.model.get_submodule(layer)
    assert isinstance(fitted, nn.Conv2d | nn.Linear)
    assert fitted.bias is not None
    with torch.no_grad():
        fitted.weight.copy_(matrix.view_as(fitted.weight))
        fitted.bias.copy_(offset)
    now.narrow(layer, kept)


def _scale(norm: nn.Module) -> Tensor:
    """Return the factors of a batch normalisation, infinite for channels that it nearly suppresses."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
    return torch.where(scale.abs() > MIN_SCALE * scale.abs().max(), scale, math.inf)


def _fit_filters(ghost: GhostConv2d, now: LayerInputs, then: LayerInputs, site: Site, others: Tensor) -> None:
    """Fit the depthwise filters of the ghosts to the maps of the original network."""
    size = ghost.cheap.kernel_size[0]
    statistics: PairStatistics | None = None
    number = len(others)
    for x, x_then in zip(now.at(site.conv), then.at(site.conv), strict=True):
        target = _compute_maps(then.model, site, x_then)[:, others]
        with torch.no_grad():
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
        return flatten_outputs(model(x))


def output_error(got: Tensor, expected: Tensor) -> float:
    """Return the squared error of outputs as a share of their variance over the images; infinite if not finite."""
    if not torch.isfinite(got).all():
        return math.inf
    variance = (expected - expected.mean(0)).square().sum() if len(expected) > 1 else expected.square().sum()
    return float((got - expected).square().sum() / variance.clamp(min=torch.finfo(torch.float32).tiny))
