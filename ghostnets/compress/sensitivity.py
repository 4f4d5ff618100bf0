"""Measured damage of changes, one convolution at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ghostnets.compress.budget import Choice, CostModel, Option
from ghostnets.compress.fit import apply_fitted_change, measure_moments, output_error, outputs_of
from ghostnets.compress.moments import Moments, select_predictors, select_sources
from ghostnets.compress.sites import Site
from ghostnets.compress.surgery import describe_change, restore_layers

__all__ = ["SiteSensitivity", "find_options"]

MOMENT_BYTES = 256 << 20  # for covariances held at a time
MIN_UNEXPLAINED = 1e-4  # below it, the extrapolated damage is dominated by rounding errors


@dataclass(frozen=True)
class SiteSensitivity:
    """Measured damage of a change of one convolution.

    Attributes:
        conv: Name of the convolution.
        kind: ``"ghost"``; ``"mixed ghost"``, whose ghosts are those of linear combinations of the intrinsic maps; or
            ``"merge"``: channels are dropped, and their best linear prediction from the others is folded into the next
            layer.
        channels: Number of maps of the convolution.
        number: Number of kept maps at which the damage was measured.
        unexplained: Share of the maps' variance that the kept ones do not predict.
        damage: Squared error of the network's output as a share of its variance over the images.
    """

    conv: str
    kind: str
    channels: int
    number: int
    unexplained: float
    damage: float


def find_options(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Sequence[Tensor],
    probes: Tensor,
    costs: CostModel,
    kinds: Sequence[str],
) -> tuple[dict[str, list[Option]], list[SiteSensitivity]]:
    """Find the possible changes of each site, and measure the damage of each kind with half of the maps kept.

    Args:
        model: Network in evaluation mode; changed temporarily, and restored.
        sites: Convolutions that can be changed.
        batches: Images that changes are fitted to.
        probes: Images that damage is measured on, (N, C, H, W).
        costs: Multiply-adds of changes; kinds that save none at a site are left out.
        kinds: Kinds of changes to consider.

    Returns:
        Options by name of the convolution; measured damages, in order of the sites.
    """
    expected = outputs_of(model, probes)
    options: dict[str, list[Option]] = {site.conv: [] for site in sites}
    measured = []
    for group in _groups(model, sites, kinds):
        wanted = [(site, place) for site, place in group]
        for (site, place), moments in zip(wanted, measure_moments(model, wanted, batches), strict=True):
            for kind in kinds:
                if (kind == "merge") != (place == "merge") or not _saves(costs, site, kind):
                    continue
                order, errors = _order(model, site, kind, moments)
                number = -(-len(order) // 2)
                change = describe_change(site, kind, number, cheap_kernel_size=costs.cheap_kernel_size)
                unexplained = float(errors[number])
                with restore_layers(model, change):
                    apply_fitted_change(model, change, order[:number], moments)
                    damage = output_error(outputs_of(model, probes), expected)
                measured.append(SiteSensitivity(site.conv, kind, len(order), number, unexplained, damage))
                options[site.conv].append(Option(kind, order, errors, damage / max(unexplained, MIN_UNEXPLAINED)))
    return options, measured


def _groups(model: nn.Module, sites: Sequence[Site], kinds: Sequence[str]) -> Iterator[list[tuple[Site, str]]]:
    """Yield groups of sites whose statistics fit into memory together, with the source of their maps."""
    group: list[tuple[Site, str]] = []
    size = 0
    for site in sites:
        conv = model.get_submodule(site.conv)
        assert isinstance(conv, nn.Conv2d)
        places = [*(["merge"] if "merge" in kinds and site.consumer else []), "ghost"]
        size += len(places) * 8 * conv.out_channels**2
        if group and size > MOMENT_BYTES:
            yield group
            group, size = [], len(places) * 8 * conv.out_channels**2
        group += [(site, place) for place in places]
    if group:
        yield group


def _saves(costs: CostModel, site: Site, kind: str) -> bool:
    """Return whether a change to half of the maps saves multiply-adds."""
    conv = costs.model.get_submodule(site.conv)
    assert isinstance(conv, nn.Conv2d)
    choices = {site.conv: Choice(kind, -(-conv.out_channels // 2))}
    layers = costs.layers(site)
    return sum(costs.cost_of(name, choices) for name in layers) < 0.98 * sum(costs.base[name] for name in layers)


def _order(model: nn.Module, site: Site, kind: str, moments: Moments) -> tuple[Tensor, Tensor]:
    """Order the channels of a site by their use as predictors."""
    covariance = moments.covariance()
    if kind == "ghost":
        return select_sources(covariance)
    weight = model.get_submodule(site.consumer).weight if kind == "merge" else None
    assert weight is None or isinstance(weight, Tensor)
    return select_predictors(covariance, weight)
