"""Choice of changes within a budget of multiply-adds or time that minimises the expected damage."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ghostnets.compress.sites import Site
from ghostnets.measure import Cost

__all__ = ["Choice", "CostModel", "Option", "choose"]

MIN_POWER, MAX_POWER = 0.5, 4.0  # of the damage in the share of dropped maps
SWEEPS = 3  # over all sites, as neighbours share a layer
BISECTIONS = 24


@dataclass(frozen=True)
class Choice:
    """One change of a site: ``kind`` as in ``describe_change``, and the number of kept channels or intrinsic maps."""

    kind: str
    number: int


@dataclass(frozen=True)
class Option:
    """A kind of change at a site.

    Attributes:
        kind: ``"merge"``, ``"mixed ghost"`` or ``"ghost"``.
        order: Channels in the order in which they are kept, int64 (C,).
        damages: Number of kept maps -> measured damage of the network's output.
    """

    kind: str
    order: Tensor
    damages: Mapping[int, float]

    def numbers(self) -> list[int]:
        """Candidate numbers of kept maps: from an eighth to nearly all, in multiples that suit vector instructions."""
        channels = len(self.order)
        step = 8 if channels >= 64 else 4 if channels >= 16 else 1
        return list(range(max(1, -(-channels // (8 * step)) * step), channels, step))

    def damage_of(self, number: int) -> float:
        """Expected damage with this number of maps: a power of the share of dropped ones between measured points."""
        channels, measured = len(self.order), sorted(self.damages)
        pairs = list(itertools.pairwise(measured)) or [(measured[0], measured[0])]
        few, more = next((pair for pair in pairs if number <= pair[1]), pairs[-1])
        power = 1.0
        if few < more and self.damages[more] > 0 and self.damages[few] < math.inf:
            growth = max(self.damages[few] / self.damages[more], 1.0)
            power = math.log(growth) / math.log((channels - few) / (channels - more))
            power = min(max(power, MIN_POWER), MAX_POWER)
        nearest = few if number < more else more
        return self.damages[nearest] * ((channels - number) / (channels - nearest)) ** power


@dataclass
class CostModel:
    """Multiply-adds of a network, or its time, as a function of its changes.

    Args:
        model: The network.
        cost: Measured cost of the network.
        sites: Sites of the network.
        cheap_kernel_size: Size of the filters of ghosts.
        seconds: Measured time by layer, for costs in seconds; the time of a layer is taken to be proportional to its
            multiply-adds.
        prices: Seconds of one multiply-add of the ghosts of a site, by its name.
    """

    model: nn.Module
    cost: Cost
    sites: Sequence[Site]
    cheap_kernel_size: int
    seconds: Mapping[str, float] | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    whole: float = field(init=False)  # cost of the unchanged network
    base: dict[str, float] = field(init=False)  # cost of each of its layers
    shapes: dict[str, tuple[int, int, int]] = field(init=False)  # inputs, outputs, taps
    positions: dict[str, float] = field(init=False)  # output pixels of each layer
    fed_by: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        macs = {layer.name: layer.macs for layer in self.cost.layers}
        modules = dict(self.model.named_modules())
        self.shapes = {name: _shape(modules[name]) for name in macs}
        self.positions = {name: macs[name] / math.prod(self.shapes[name]) for name in macs}
        if self.seconds is None:
            self.whole, self.base = self.cost.macs, {name: float(number) for name, number in macs.items()}
        else:
            self.whole, self.base = sum(self.seconds.values()), {name: self.seconds.get(name, 0.0) for name in macs}
        self.fed_by = {site.consumer: site.conv for site in self.sites if site.consumer}
        self.fed_by |= {name: site.conv for site in self.sites for name in site.chain}

    def layers(self, site: Site) -> list[str]:
        """Names of the layers whose cost depends on a site."""
        return [name for name in (site.conv, *site.chain, site.consumer) if name in self.base]

    def cost_of(self, name: str, choices: Mapping[str, Choice]) -> float:
        """Cost of a layer with these changes of sites."""
        inputs, outputs, _ = self.shapes[name]
        feeding, own, cost = choices.get(self.fed_by.get(name, "")), choices.get(name), self.base[name]
        if feeding is not None and feeding.kind == "merge":
            cost *= feeding.number / inputs
        if own is None:
            return cost
        cost *= own.number / outputs
        return cost if own.kind == "merge" else cost + self.prices.get(name, 1.0) * self.ghost_macs(name, own)

    def ghost_macs(self, name: str, choice: Choice) -> float:
        """Multiply-adds of the ghosts of a convolution alone, without its intrinsic maps."""
        each = self.cheap_kernel_size**2 + (choice.number if choice.kind == "mixed ghost" else 0)
        return self.positions[name] * (self.shapes[name][1] - choice.number) * each

    def total(self, choices: Mapping[str, Choice]) -> float:
        """Cost of the network with these changes."""
        changed = {name for site in self.sites if site.conv in choices for name in self.layers(site)}
        return self.whole + sum(self.cost_of(name, choices) - self.base[name] for name in changed)


def _shape(layer: nn.Module) -> tuple[int, int, int]:
    """Return the numbers of inputs, outputs and taps of a layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 1
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return layer.in_channels, len(weight), weight[0, 0].numel()  # type: ignore[return-value]


def choose(
    options: Mapping[str, Sequence[Option]], costs: CostModel, sites: Sequence[Site], budget: float
) -> dict[str, Choice]:
    """Choose the changes with the lowest total expected damage that meet a budget.

    For a price of one multiply-add or second, each site takes what minimises damage plus price, given its neighbours;
    the lowest price that meets the budget is found by bisection.

    Args:
        options: Options by name of the convolution.
        costs: Costs of changes.
        sites: The sites.
        budget: Maximum cost, in the unit of ``costs``.

    Returns:
        Choice by name of the convolution; the cheapest one that was found if the budget cannot be met.
    """
    offered = [site for site in sites if options.get(site.conv)]
    low, high = -30.0, 30.0  # decimal logarithm of the price of the whole network
    cheapest = _choose_at(options, costs, offered, 10.0**high)
    if costs.total(cheapest) > budget:
        return cheapest
    best = cheapest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = _choose_at(options, costs, offered, 10.0**middle)
        if costs.total(found) <= budget:
            best, high = found, middle
        else:
            low = middle
    return _spend(options, costs, best, budget)


def _spend(
    options: Mapping[str, Sequence[Option]], costs: CostModel, choices: Mapping[str, Choice], budget: float
) -> dict[str, Choice]:
    """Undo changes, the most damaging first, as long as the budget is met."""
    choices = dict(choices)

    def damage(conv: str, choice: Choice) -> float:
        return next(option for option in options[conv] if option.kind == choice.kind).damage_of(choice.number)

    for conv in sorted(choices, key=lambda conv: -damage(conv, choices[conv])):
        chosen = choices.pop(conv)
        if costs.total(choices) <= budget:
            continue
        kept = [(damage(conv, chosen), chosen)]
        for option in options[conv]:
            for number in option.numbers():
                choice = Choice(option.kind, number)
                if option.damage_of(number) < kept[0][0] and costs.total({**choices, conv: choice}) <= budget:
                    kept.insert(0, (option.damage_of(number), choice))
        choices[conv] = kept[0][1]
    return choices


def _choose_at(
    options: Mapping[str, Sequence[Option]], costs: CostModel, sites: Sequence[Site], price: float
) -> dict[str, Choice]:
    choices: dict[str, Choice] = {}
    unit = price / costs.whole
    for _ in range(SWEEPS):
        before = dict(choices)
        for site in sites:
            choices.pop(site.conv, None)
            layers = costs.layers(site)
            best, chosen = unit * sum(costs.cost_of(name, choices) for name in layers), None
            for option in options[site.conv]:
                for number in option.numbers():
                    choice = Choice(option.kind, number)
                    trial = {**choices, site.conv: choice}
                    value = option.damage_of(number) + unit * sum(costs.cost_of(name, trial) for name in layers)
                    if value < best:
                        best, chosen = value, choice
            if chosen is not None:
                choices[site.conv] = chosen
        if choices == before:
            break
    return choices
