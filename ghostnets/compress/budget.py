"""Choice of changes within a budget of multiply-adds that minimises the expected damage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ghostnets.compress.sites import Site
from ghostnets.measure import Cost

__all__ = ["Choice", "CostModel", "Option", "choose"]

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
        errors: Unexplained share of the site's maps after the first n, (C + 1,).
        damage: Damage of the network's output for an unexplained share of 1, extrapolated from a measured one.
    """

    kind: str
    order: Tensor
    errors: Tensor
    damage: float = 1.0

    def numbers(self) -> list[int]:
        """Candidate numbers of kept maps: from a quarter to nearly all, in multiples that suit vector instructions."""
        channels = len(self.order)
        step = 8 if channels >= 64 else 4 if channels >= 16 else 1
        return list(range(max(1, -(-channels // (4 * step)) * step), channels, step))

    def damage_of(self, number: int) -> float:
        """Expected damage with this number of maps."""
        return self.damage * float(self.errors[number])


@dataclass
class CostModel:
    """Multiply-adds of a network as a function of its changes.

    Args:
        model: The network.
        cost: Measured cost of the network.
        sites: Sites of the network.
        cheap_kernel_size: Size of the filters of ghosts.
    """

    model: nn.Module
    cost: Cost
    sites: Sequence[Site]
    cheap_kernel_size: int
    base: dict[str, int] = field(init=False)
    shapes: dict[str, tuple[int, int, int]] = field(init=False)  # inputs, outputs, taps
    fed_by: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.base = {layer.name: layer.macs for layer in self.cost.layers}
        modules = dict(self.model.named_modules())
        self.shapes = {name: _shape(modules[name]) for name in self.base}
        self.fed_by = {site.consumer: site.conv for site in self.sites if site.consumer}
        self.fed_by |= {name: site.conv for site in self.sites for name in site.chain}

    def layers(self, site: Site) -> list[str]:
        """Names of the layers whose cost depends on a site."""
        return [name for name in (site.conv, *site.chain, site.consumer) if name in self.base]

    def macs(self, name: str, choices: Mapping[str, Choice]) -> float:
        """Multiply-adds of a layer with these changes of sites."""
        inputs, outputs, taps = self.shapes[name]
        feeding, own, macs = choices.get(self.fed_by.get(name, "")), choices.get(name), float(self.base[name])
        if feeding is not None and feeding.kind == "merge":
            macs *= feeding.number / inputs
        if own is None:
            return macs
        positions = self.base[name] / (taps * inputs * outputs)
        macs *= own.number / outputs
        if own.kind != "merge":
            each = self.cheap_kernel_size**2 + (own.number if own.kind == "mixed ghost" else 0)
            macs += positions * (outputs - own.number) * each
        return macs

    def total(self, choices: Mapping[str, Choice]) -> float:
        """Multiply-adds of the network with these changes."""
        changed = {name for site in self.sites if site.conv in choices for name in self.layers(site)}
        return self.cost.macs + sum(self.macs(name, choices) - self.base[name] for name in changed)


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

    For a price of one multiply-add, each site takes what minimises damage plus price, given its neighbours; the lowest
    price that meets the budget is found by bisection.

    Args:
        options: Options by name of the convolution.
        costs: Multiply-adds of changes.
        sites: The sites.
        budget: Maximum number of multiply-adds.

    Returns:
        Choice by name of the convolution; the cheapest one that was found if the budget cannot be met.
    """
    offered = [site for site in sites if options.get(site.conv)]
    low, high = -30.0, 30.0  # decimal logarithm of the price of all multiply-adds of the network
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
    unit = price / costs.cost.macs
    for _ in range(SWEEPS):
        before = dict(choices)
        for site in sites:
            choices.pop(site.conv, None)
            layers = costs.layers(site)
            best, chosen = unit * sum(costs.macs(name, choices) for name in layers), None
            for option in options[site.conv]:
                for number in option.numbers():
                    choice = Choice(option.kind, number)
                    trial = {**choices, site.conv: choice}
                    value = option.damage_of(number) + unit * sum(costs.macs(name, trial) for name in layers)
                    if value < best:
                        best, chosen = value, choice
            if chosen is not None:
                choices[site.conv] = chosen
        if choices == before:
            break
    return choices
