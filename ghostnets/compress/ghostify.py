"""Convert convolutions of a trained network to Ghost modules fitted to approximate its outputs."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ghostnets.compress.budget import Choice, CostModel, Option, choose
from ghostnets.compress.eligibility import find_ineligible
from ghostnets.compress.fit import fit_change, output_error, outputs_of
from ghostnets.compress.latency import Timer, choose_by_time
from ghostnets.compress.layer_inputs import LayerInputs
from ghostnets.compress.network_io import check_finite, check_network, check_run, join_batches, read_batches
from ghostnets.compress.sensitivity import SiteSensitivity, find_options
from ghostnets.compress.sites import Site, find_sites, trace
from ghostnets.compress.surgery import describe_change
from ghostnets.errors import ConfigurationError
from ghostnets.layers.copying import copy_module
from ghostnets.measure import count

__all__ = ["Analysis", "CompressionReport", "analyse", "ghostify"]

BATCH = 16  # images per forward pass
PROBES = 32  # images that damage is measured on
NOISE_IMAGES = 64


@dataclass(frozen=True)
class CompressionReport:
    """Result of ``ghostify``.

    Attributes:
        changes: Changes in order, for ``apply_changes``.
        left_alone: Convolution -> why it was not changed.
        sensitivity: Measured damage of single changes.
        macs: Multiply-adds before and after.
        params: Parameters before and after.
        output_error: Squared error of the outputs on some of the images, as a share of their variance over the images;
            the changes are fitted to these too, so that other images have a larger one.
        seconds: Measured time of one image before and after, where the budget is one of time.
        notes: Further remarks for the user.
    """

    changes: tuple[dict[str, Any], ...]
    left_alone: dict[str, str]
    sensitivity: tuple[SiteSensitivity, ...]
    macs: tuple[int, int]
    params: tuple[int, int]
    output_error: float
    seconds: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def ghostify(
    model: nn.Module,
    images: Tensor | Iterable[Tensor] | None = None,
    *,
    budget: float = 0.5,
    ratio: float | None = None,
    table: Mapping[str, float] | None = None,
    cheap_kernel_size: int = 3,
    layers: Collection[str] | None = None,
    image_size: int = 224,
    timer: Timer | None = None,
) -> tuple[nn.Module, CompressionReport]:
    """Return a network with fewer multiply-adds that approximates the original, without training.

    Convolutions become Ghost modules (``GhostConv2d``): intrinsic maps are selected, and cheap kernels fitted by least
    squares to reproduce the other maps. Where the output error is lower, channels are merged instead: the prediction of
    the dropped channels from the kept ones is folded into the next layer (Kim et al., "Neuron Merging", NeurIPS 2020).
    With a budget, the damage of each kind of change is measured on the images, one convolution at a time; layers and
    numbers of maps are chosen by expected damage and saved multiply-adds. Changes are then fitted from front to back,
    each on the activations of the network changed so far, with the maps of the original as targets.

    Args:
        model: Any network that takes one tensor, on the CPU; left unchanged.
        images: Representative unlabelled images, preprocessed: float (N, C, H, W), or batches of such; a sequence is
            read several times, a generator once, into memory. A few hundred are enough. By default random images with
            the spectrum of photographs, which give a worse fit.
        budget: Multiply-adds of the result as a share of the network's; with ``timer``, its time.
        ratio: Maps per intrinsic map: instead of a budget, make every convolution a Ghost module with this ratio.
        table: Name of a convolution -> ratio, instead of a budget: make these convolutions Ghost modules.
        cheap_kernel_size: Size of the depthwise filters of ghosts, odd.
        layers: Names of the convolutions that may change; all by default.
        image_size: Height and width of the random images.
        timer: Measures the time of a network's modules for one image, such as ``ghostnets.engine.time_layers``; the
            budget is then a share of the measured time.

    Returns:
        The new network, in evaluation mode, and a report.

    Raises:
        ConfigurationError: An argument is out of range, a name is unknown, no convolution can be changed, or the
            budget cannot be met.
    """
    _check(budget, ratio, table)
    if timer is not None and (ratio is not None or table is not None):
        raise ConfigurationError("a timer is given beside ratios; pass a budget with it, or omit it.")
    if table is not None and layers is not None:
        raise ConfigurationError("both table and layers are given; pass one of them.")
    names = layers if table is None else list(table)
    analysis = analyse(
        model,
        images,
        cheap_kernel_size=cheap_kernel_size,
        layers=names,
        image_size=image_size,
        ghosts_only=ratio is not None or table is not None,
    )
    if ratio is None and table is None:
        return analysis.ghostify(budget, timer=timer)
    if refused := [name for name in table or () if name in analysis.left_alone]:
        raise ConfigurationError(
            f"{refused[0]!r} of the table cannot be changed: {analysis.left_alone[refused[0]]}; leave it out."
        )
    return analysis.convert(_choose_by_ratio(analysis.options, analysis.costs, table if table is not None else ratio))


@dataclass(frozen=True)
class Analysis:
    """Result of ``analyse``: the measured damage of every change, for any number of budgets.

    Attributes:
        original: Copy of the network, in evaluation mode.
        graph: Its graph, or None if ``torch.fx`` cannot trace it.
        sites: Convolutions that can be changed, in order of execution.
        left_alone: Convolution -> why it cannot be changed.
        options: Changes by name of the convolution.
        sensitivity: Measured damage of single changes.
        costs: Multiply-adds of changes.
        batches: Images that changes are fitted to.
        probes: Images that damage is measured on, by changes that are not fitted to them.
        notes: Further remarks for the user.
    """

    original: nn.Module
    graph: fx.Graph | None
    sites: tuple[Site, ...]
    left_alone: dict[str, str]
    options: dict[str, list[Option]]
    sensitivity: tuple[SiteSensitivity, ...]
    costs: CostModel
    batches: Sequence[Tensor]
    probes: Tensor
    notes: tuple[str, ...]

    def ghostify(self, budget: float, *, timer: Timer | None = None) -> tuple[nn.Module, CompressionReport]:
        """Return the network within a budget of multiply-adds or time, as a share of the original's, and the report.

        Args:
            budget: Share of the multiply-adds, or, with a timer, of the time.
            timer: As for ``ghostnets.ghostify``.

        Raises:
            ConfigurationError: The budget is out of range or cannot be met.
        """
        _check(budget, None, None)
        if timer is not None:
            choices, seconds = choose_by_time(self.options, self.costs, self.sites, budget, timer)
            made, report = self.convert(choices)
            return made, replace(report, seconds=seconds)
        choices = choose(self.options, self.costs, self.sites, budget * self.costs.whole)
        reached = self.costs.total(choices) / self.costs.whole
        if reached > budget:
            raise ConfigurationError(
                f"the budget is {budget:.3g} of the multiply-adds, but changes of {len(self.options)} convolutions end"
                f" at {reached:.3g}; pass a larger budget (Ghost modules and depthwise convolutions stay as they are)."
            )
        return self.convert(choices)

    def convert(self, choices: Mapping[str, Choice]) -> tuple[nn.Module, CompressionReport]:
        """Return the network with these changes, fitted from front to back, and the report.

        Raises:
            ConfigurationError: The result has outputs of another shape, or non-finite ones.
        """
        made, changes = copy_module(self.original), []
        now, then = (LayerInputs(network, self.graph, self.batches) for network in (made, self.original))
        for site in self.sites:
            if site.conv in choices:
                choice = choices[site.conv]
                order = next(option.order for option in self.options[site.conv] if option.kind == choice.kind)
                size = self.costs.cheap_kernel_size
                change = describe_change(site, choice.kind, choice.number, cheap_kernel_size=size)
                fit_change(now, then, site, change, order[: choice.number])
                changes.append(change)
        expected, got = outputs_of(self.original, self.probes), outputs_of(made, self.probes)
        if got.shape != expected.shape or not torch.isfinite(got).all():
            raise ConfigurationError(
                f"{type(made).__name__} cannot be compressed: its outputs would be non-finite or of another shape."
            )
        kept = {site.conv: "its savings do not justify the damage" for site in self.sites if site.conv not in choices}
        cost, params = self.costs.cost, sum(parameter.numel() for parameter in made.parameters())
        report = CompressionReport(
            changes=tuple(changes),
            left_alone={**self.left_alone, **kept},
            sensitivity=self.sensitivity,
            macs=(cost.macs, count(made, cost.input_shape).macs),
            params=(cost.params, params),
            output_error=output_error(got, expected),
            notes=self.notes,
        )
        return made, report


def analyse(
    model: nn.Module,
    images: Tensor | Iterable[Tensor] | None = None,
    *,
    cheap_kernel_size: int = 3,
    layers: Collection[str] | None = None,
    image_size: int = 224,
    ghosts_only: bool = False,
) -> Analysis:
    """Measure the damage of changing each convolution, for ``Analysis.ghostify`` with several budgets.

    Args:
        model: Network, of any kind that ``ghostify`` accepts.
        images: Unlabelled images.
        cheap_kernel_size: Size of the depthwise filters of ghosts.
        layers: Names of the convolutions that may change.
        image_size: Height and width of random images.
        ghosts_only: Whether channels are never merged.

    Raises:
        ConfigurationError: An argument is out of range, or no convolution can be changed.
    """
    if cheap_kernel_size < 1 or cheap_kernel_size % 2 == 0:
        raise ConfigurationError(f"cheap_kernel_size is {cheap_kernel_size}; it must be odd.")
    known = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if unknown := sorted(set(layers or ()) - known):
        raise ConfigurationError(
            f"{unknown[0]!r} is not a convolution of {type(model).__name__}; pass names of named_modules()."
        )
    check_network(model)
    original = copy_module(model).eval()
    batches, notes = _batches(original, images, image_size)
    sample = batches[0][:2]
    check_run(original, sample)
    graph, untraced = trace(original, sample)
    sites = find_sites(original, graph)
    notes += [f"{untraced}; channels are not merged."] if untraced else []
    left_alone = find_ineligible(original, sites, batches[0], layers)
    sites = [site for site in sites if site.conv not in left_alone]
    if not sites:
        raise ConfigurationError(
            f"{type(model).__name__} has no convolution that can be changed"
            f" ({'; '.join(f'{name}: {reason}' for name, reason in list(left_alone.items())[:3]) or 'it has none'})."
        )
    probes, others = _hold_out(batches)
    check_finite(probes)
    costs = CostModel(original, count(original, tuple(batches[0].shape[1:])), sites, cheap_kernel_size)
    kinds = ("mixed ghost", "ghost") if ghosts_only else ("merge", "mixed ghost", "ghost")
    options, sensitivity = find_options(original, sites, others, LayerInputs(original, graph, [probes]), costs, kinds)
    return Analysis(
        original, graph, tuple(sites), left_alone, options, tuple(sensitivity), costs, batches, probes, tuple(notes)
    )


def _check(budget: float, ratio: float | None, table: Mapping[str, float] | None) -> None:
    if not 0 < budget < 1:
        raise ConfigurationError(
            f"budget is {budget}; it must be between 0 and 1, a share of the multiply-adds or the time."
        )
    ratios = [*(table or {}).values(), *([] if ratio is None else [ratio])]
    if any(not 1 < value < float("inf") for value in ratios):
        raise ConfigurationError(f"a ratio is {min(ratios)}; it must be above 1, maps per intrinsic map.")
    if ratio is not None and table is not None:
        raise ConfigurationError("both ratio and table are given; pass one of them.")


def _batches(
    model: nn.Module, images: Tensor | Iterable[Tensor] | None, size: int
) -> tuple[Sequence[Tensor], list[str]]:
    """Return the images in batches, and a note if they are random."""
    if images is None:
        convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        channels = convs[0].in_channels if convs else 3
        generator = torch.Generator().manual_seed(0)
        spectrum = torch.fft.rfft2(torch.randn(NOISE_IMAGES, channels, size, size, generator=generator))
        rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
        noise = torch.fft.irfft2(
            spectrum / (rows.square() + columns.square()).sqrt().clamp(min=1 / size), s=(size, size)
        )
        noise = (noise - noise.mean()) / noise.std()
        return list(noise.split(BATCH)), ["fitted to random images, as none were given."]
    return read_batches(images, BATCH), []


class _Others:
    """Images of each batch after the first few."""

    def __init__(self, batches: Sequence[Tensor], first: int) -> None:
        self.batches, self.first = batches, first

    def __iter__(self) -> Iterator[Tensor]:
        return (batch[self.first :] for batch in self.batches if len(batch) > self.first)


def _hold_out(batches: Sequence[Tensor]) -> tuple[Tensor, Iterable[Tensor]]:
    """Return images to measure damage on, evenly spread, and the others to fit to; all for both if batches have one."""
    number = min(-(-PROBES // len(batches)), len(batches[0]) // 2)
    probes = join_batches(batch[: max(number, 1)] for batch in batches)
    spread = torch.linspace(0, len(probes) - 1, min(PROBES, len(probes))).long()
    return probes[spread], _Others(batches, number)


def _choose_by_ratio(
    options: Mapping[str, Sequence[Option]], costs: CostModel, ratios: Mapping[str, float] | float | None
) -> dict[str, Choice]:
    """Choose for each site the ghosts with the lower error at a given ratio, among those that save multiply-adds."""
    choices: dict[str, Choice] = {}
    for conv, found in options.items():
        ratio = ratios[conv] if isinstance(ratios, Mapping) else ratios
        assert ratio is not None
        best = float("inf")
        for option in found:
            channels = len(option.order)
            number = min(math.ceil(channels / ratio), channels - 1)
            choice = Choice(option.kind, number)
            if costs.cost_of(conv, {conv: choice}) < costs.base[conv] and option.damage_of(number) < best:
                best, choices[conv] = option.damage_of(number), choice
    return choices
