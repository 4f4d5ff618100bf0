"""Measured damage of changes, one convolution at a time."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ghostnets.compress.budget import Choice, CostModel, Option
from ghostnets.compress.fit import apply_fitted_change, measure_moments, output_error
from ghostnets.compress.layer_inputs import LayerInputs
from ghostnets.compress.moments import Moments, select_predictors, select_sources
from ghostnets.compress.sites import Site
from ghostnets.compress.surgery import describe_change, layers_of, restore_layers

__all__ = ["SiteSensitivity", "find_options"]

MOMENT_BYTES = 256 << 20  # for covariances held at a time
SHARES = (0.25, 0.5, 0.75)  # of the maps that are kept where damage is measured


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

    @property
    def is_half(self) -> bool:
        """Whether half of the maps were kept."""
        return self.number == -(-self.channels // 2)


def find_options(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Iterable[Tensor],
    probes: LayerInputs,
    costs: CostModel,
    kinds: Sequence[str],
) -> tuple[dict[str, list[Option]], list[SiteSensitivity]]:
    """Find the possible changes of each site, and measure the damage of each kind with ``SHARES`` of the maps kept.

    Args:
        model: Network in evaluation mode; changed temporarily, and restored.
        sites: Convolutions that can be changed.
        batches: Images that changes are fitted to.
        probes: The network with images that damage is measured on.
        costs: Multiply-adds of changes; kinds that save none at a site are left out.
        kinds: Kinds of changes to consider.

    Returns:
        Options by name of the convolution; measured damages, in order of the sites.
    """
    expected = probes.outputs(sites[0].conv)
    options: dict[str, list[Option]] = {site.conv: [] for site in sites}
    measured = []
    for group in _groups(costs, sites, kinds):
        for (site, place), moments in zip(group, measure_moments(model, group, batches), strict=True):
            for kind in _kinds_at(costs, site, place, kinds):
                order, errors = _order(model, site, kind, moments)
                damages = {}
                for share in SHARES:
                    number = min(math.ceil(share * len(order)), len(order) - 1)
                    change = describe_change(site, kind, number, cheap_kernel_size=costs.cheap_kernel_size)
                    with restore_layers(model, layers_of(change)):
                        apply_fitted_change(model, change, order[:number], moments)
                        damages[number] = output_error(probes.outputs(site.conv), expected)
                    entry = SiteSensitivity(site.conv, kind, len(order), number, float(errors[number]), damages[number])
                    measured.append(entry)
                options[site.conv].append(Option(kind, order, damages))
    return options, measured


def _groups(costs: CostModel, sites: Sequence[Site], kinds: Sequence[str]) -> Iterator[list[tuple[Site, str]]]:
    """Yield groups of sites whose statistics fit into memory together, with the source of their maps."""
    group: list[tuple[Site, str]] = []
    size = 0
    for site in sites:
        conv = costs.model.get_submodule(site.conv)
        assert isinstance(conv, nn.Conv2d)
        for place in ("merge", "ghost"):
            if not _kinds_at(costs, site, place, kinds):
                continue
            needed = 2 * 8 * conv.out_channels**2
            if group and size + needed > MOMENT_BYTES:
                yield group
                group, size = [], 0
            group.append((site, place))
            size += needed
    if group:
        yield group


def _kinds_at(costs: CostModel, site: Site, place: str, kinds: Sequence[str]) -> list[str]:
    """Return the kinds of changes of a site that save multiply-adds, by the source of their maps."""
    wanted = [kind for kind in kinds if (kind == "merge") == (place == "merge") and (kind != "merge" or site.consumer)]
    return [kind for kind in wanted if _saves(costs, site, kind)]


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
