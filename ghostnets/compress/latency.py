"""Choice of changes within a budget of measured time: choose by estimated times, build, measure, correct."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from ghostnets.compress.budget import Choice, CostModel, Option, choose
from ghostnets.compress.sites import Site
from ghostnets.compress.surgery import apply_changes, describe_change
from ghostnets.errors import ConfigurationError

__all__ = ["Timer", "choose_by_time"]

Timer = Callable[[nn.Module, tuple[int, int, int]], Mapping[str, float]]
"""Function that measures a network on one image of a shape (C, H, W): seconds by the name of a module; the sum of all
is the time of the network."""

ROUNDS = 8
MARGIN = 0.99  # of the budget, for each round that missed it
USED = 0.97  # of the budget: no further round
FIRST_PRICE = 4.0  # of a multiply-add of ghosts, in those of the convolution that they replace, until it is measured


def choose_by_time(
    options: Mapping[str, Sequence[Option]], costs: CostModel, sites: Sequence[Site], budget: float, timer: Timer
) -> tuple[dict[str, Choice], tuple[float, float]]:
    """Choose the changes with the lowest expected damage whose network takes at most a share of the original's time.

    The time of a layer is estimated as proportional to its multiply-adds; that of the ghosts of a convolution is known
    once a network with them was measured. Each round measures the original and a network with the chosen changes, not
    fitted yet, one after the other, and corrects prices and budget, until at least 97 % of the budget are used. Of the
    networks within the budget, the slowest has the least damage, and is chosen.

    Args:
        options: Options by name of the convolution.
        costs: Multiply-adds of changes.
        sites: The sites.
        budget: Largest time, as a share of the original's.
        timer: Measures times.

    Returns:
        Choice by name of the convolution; measured seconds of the original and of the network with these changes.

    Raises:
        ConfigurationError: No convolution has a time, or no round meets the budget.
    """
    channels, height, width = costs.cost.input_shape
    shape = (channels, height, width)
    measured: dict[str, float] = {}  # prices
    target, misses, shares = budget, 0, list[float]()
    best: tuple[float, dict[str, Choice], tuple[float, float]] | None = None
    for _ in range(ROUNDS):
        before = timer(costs.model, shape)
        if not any(before.get(conv, 0) > 0 for conv in options):
            raise ConfigurationError(
                "the timer gives no time of any convolution; pass one that names the modules of the network, such as"
                " ghostnets.engine.time_layers."
            )
        first = {conv: FIRST_PRICE * before.get(conv, 0.0) / costs.base[conv] for conv in options}
        timed = replace(costs, seconds=before, prices={**first, **measured})
        choices = choose(options, timed, sites, target * timed.whole)
        if best is not None and choices == best[1]:
            break
        after = timer(_build(costs, sites, choices), shape)
        shares.append(sum(after.values()) / timed.whole)
        if shares[-1] <= budget and (best is None or shares[-1] > best[0]):
            best = shares[-1], choices, (timed.whole, sum(after.values()))
        if USED * budget <= shares[-1] <= budget:
            break
        misses += shares[-1] > budget
        measured |= _measure_prices(timed, choices, after)
        estimate = replace(timed, prices={**timed.prices, **measured}).total(choices) / timed.whole
        target = budget * MARGIN**misses * estimate / shares[-1]
    if best is None:
        raise ConfigurationError(
            f"the budget is {budget:.3g} of the measured time, but the fastest of {ROUNDS} networks takes"
            f" {min(shares):.3g}; pass a larger budget."
        )
    return best[1], best[2]


def _build(costs: CostModel, sites: Sequence[Site], choices: Mapping[str, Choice]) -> nn.Module:
    """Return the network with these changes, not fitted."""
    size = costs.cheap_kernel_size
    chosen = [(site, choices[site.conv]) for site in sites if site.conv in choices]
    changes = [describe_change(site, choice.kind, choice.number, cheap_kernel_size=size) for site, choice in chosen]
    return apply_changes(costs.model, changes)


def _measure_prices(timed: CostModel, choices: Mapping[str, Choice], after: Mapping[str, float]) -> dict[str, float]:
    """Return the measured seconds of one multiply-add of ghosts, by the convolution that they replace."""
    prices = {}
    for conv, choice in choices.items():
        if choice.kind != "merge":
            spent = sum(seconds for name, seconds in after.items() if name == conv or name.startswith(f"{conv}."))
            macs = timed.ghost_macs(conv, choice)
            intrinsic = timed.cost_of(conv, choices) - timed.prices[conv] * macs
            prices[conv] = max(0.0, spent - intrinsic) / macs
    return prices
