"""How redundant feature maps are: the paper's first figure and its table of reconstruction errors, for every layer.

Han et al., "GhostNet: More Features from Cheap Operations" (arXiv 1911.11907), observes on a trained ResNet-50 that
many maps look like another one, and that such a map can be made from the other by a small depthwise filter with little
error. Here both are measured on any network with any number of images, exactly (``least_squares``).
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.explain.least_squares import MapStatistics, PairStatistics
from ghostnets.explain.maps import MapLayer, find_map_layers, observe_maps

__all__ = [
    "KERNEL_SIZES",
    "RATIO",
    "LayerRedundancy",
    "Redundancy",
    "choose_intrinsic",
    "linear_cka",
    "measure_redundancy",
]

KERNEL_SIZES = (1, 3, 5, 7)  # d
RATIO = 2  # s: one map in so many is kept as intrinsic
RATIOS = (2, 4, 8)
PAIRS_KEPT = 12  # most similar pairs of a layer, for the gallery


@dataclass(frozen=True)
class LayerRedundancy:
    """What was measured of one layer. A ghost is here any map that was not chosen as intrinsic.

    Attributes:
        layer: Name of the Ghost module or convolution.
        kind: As in ``MapLayer``.
        channels: C, all its maps.
        size: (H, W).
        constant: Number of maps that are constant on all images; they are left out of everything below.
        twins_90, twins_95: Share of maps that have a twin: another map with a cosine above 0.9, or 0.95, in absolute
            value (a negative is a copy as well: a 1 x 1 filter with a negative weight makes it). Both maps centred by
            their means over all pixels of all images.
        nearest: Median over the maps of the largest absolute cosine with another one.
        pairs: Most similar pairs without common maps: (map, map, cosine), the strongest first.
        intrinsic: The C / 2 maps chosen as intrinsic, rounded up, in the order of the choice.
        ghosts: (ghost, the intrinsic map it is made from).
        errors: d -> mean over the ghosts of the share of variance that the best d x d filter of their intrinsic map
            leaves, in [0, 1]. The intrinsic maps are chosen at d = 3, and the same pairs serve every d.
        good: d -> share of ghosts of which less than a tenth of the variance is left.
        explained: s -> mean over the ghosts of the share of variance explained at d = 3, where C / s maps are kept.
        cka: Linear CKA of the intrinsic maps with the ghosts, as groups: 1 where they span the same, 0 unrelated.
    """

    layer: str
    kind: str
    channels: int
    size: tuple[int, int]
    constant: int
    twins_90: float
    twins_95: float
    nearest: float
    pairs: tuple[tuple[int, int, float], ...]
    intrinsic: tuple[int, ...]
    ghosts: tuple[tuple[int, int], ...]
    errors: dict[int, float]
    good: dict[int, float]
    explained: dict[int, float]
    cka: float


@dataclass(frozen=True)
class Redundancy:
    """A network: its layers in the order they run, and the number of images that were looked at."""

    layers: tuple[LayerRedundancy, ...]
    images: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def mean(self, value: Callable[[LayerRedundancy], float]) -> float:
        """The mean of a quantity over all maps: of layers, weighted by their maps that are not constant."""
        weights = [layer.channels - layer.constant for layer in self.layers]
        return sum(w * value(layer) for w, layer in zip(weights, self.layers, strict=True)) / sum(weights)


@torch.no_grad()
def measure_redundancy(
    model: nn.Module, batches: Callable[[], Iterable[Tensor]], *, on_batch: Callable[[int], None] = lambda images: None
) -> Redundancy:
    """Measures every layer of a network that makes maps (``find_map_layers``).

    The images go through twice. The first time the sums over all pairs of maps of a layer are taken, for the cosines
    and for the 3 x 3 filters between all pairs; from these the intrinsic maps are chosen (``choose_intrinsic``). The
    second time the chosen pairs alone are summed, in float64, for filters of 1, 3, 5 and 7. Memory depends on the batch
    and on the squares of the channel counts, not on the number of images.

    Args:
        model: Any network, in evaluation mode.
        batches: Gives the images anew at each call: (N, C, H, W), ready for the network, all of one size.
        on_batch: Called with the number of images after each batch of either pass.

    Raises:
        ConfigurationError: There is no image, or no layer with several maps of more than one pixel.
    """
    first = next(iter(batches()), None)
    if first is None or not len(first):
        raise ConfigurationError("there is no image to measure redundancy on; give at least one batch.")
    layers = find_map_layers(model, first[:1])
    if not layers:
        raise ConfigurationError(f"{type(model).__name__} has no layer that makes several maps of more than one pixel.")

    all_pairs = {layer.name: MapStatistics(layer.channels, layer.size) for layer in layers}
    images = _stream(model, layers, batches, on_batch, lambda layer, maps: all_pairs[layer.name].add(maps))
    chosen: dict[str, PairStatistics] = {}
    partial: dict[str, dict[str, Any]] = {}
    for layer in layers:
        sums = all_pairs.pop(layer.name)
        partial[layer.name], sources, targets = _from_all_pairs(sums)
        chosen[layer.name] = PairStatistics(sources, targets, layer.size, max(KERNEL_SIZES))
    _stream(model, layers, batches, on_batch, lambda layer, maps: chosen[layer.name].add(maps))

    results = []
    for layer in layers:
        errors = {d: chosen[layer.name].fit(d)[0] for d in KERNEL_SIZES}
        results.append(
            LayerRedundancy(
                layer=layer.name,
                kind=layer.kind,
                channels=layer.channels,
                size=layer.size,
                errors={d: error.mean().item() for d, error in errors.items()},
                good={d: (error < 0.1).double().mean().item() for d, error in errors.items()},
                **partial[layer.name],
            )
        )
    return Redundancy(tuple(results), images)


def choose_intrinsic(explained: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Greedy choice of maps from which the others are best made.

    Each step adds the map that raises the sum over all maps of the share of variance explained most, where each map is
    made from the one chosen map that explains most of it (an intrinsic map explains itself). The sum is submodular, so
    that it reaches at least 1 - 1/e of the best choice's.

    Args:
        explained: (C, C), row: made from, column: the map that is made; 1 on the diagonal.
        number: How many to choose, at most C.

    Returns:
        The chosen maps, int64 (number,), in order; for each step the mean of what is explained of the maps that are not
        chosen yet, float64 (number,); 1 where none is left.
    """
    best = torch.zeros(len(explained), dtype=explained.dtype)
    is_chosen = torch.zeros(len(explained), dtype=torch.bool)
    order, means = [], []
    for _ in range(number):
        gains = (explained - best).clamp_(min=0).sum(1)
        gains[is_chosen] = -1
        index = int(gains.argmax())
        is_chosen[index] = True
        best = torch.maximum(best, explained[index])
        order.append(index)
        means.append(1.0 if is_chosen.all() else best[~is_chosen].mean().item())
    return torch.tensor(order, dtype=torch.int64), torch.tensor(means, dtype=torch.float64)


def linear_cka(covariance: Tensor, first: Tensor, second: Tensor) -> float:
    """Linear CKA of two groups of maps, from the sums of products of all centred maps.

    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019 (arXiv 1905.00414), equation 3
    with linear kernels: ``|X^T Y|^2 / (|X^T X| |Y^T Y|)``, Frobenius norms. A row of X and Y is a pixel of an image, a
    column a map.

    Args:
        covariance: (C, C).
        first: Indices of the maps of the one group.
        second: Of the other.

    Returns:
        In [0, 1]; nan where all maps of a group are constant.
    """
    between = covariance[first][:, second].norm() ** 2
    within = covariance[first][:, first].norm() * covariance[second][:, second].norm()
    return (between / within).item() if within > 0 else float("nan")


def _stream(
    model: nn.Module,
    layers: list[MapLayer],
    batches: Callable[[], Iterable[Tensor]],
    on_batch: Callable[[int], None],
    see: Callable[[MapLayer, Tensor], None],
) -> int:
    images = 0
    with observe_maps(model, layers, see):
        for batch in batches():
            model(batch)
            images += len(batch)
            on_batch(len(batch))
    return images


def _from_all_pairs(sums: MapStatistics) -> tuple[dict[str, Any], Tensor, Tensor]:
    """What follows from the sums over all pairs, and the pairs (source, target) for the second pass."""
    covariance, cosine = sums.covariance(), sums.cosine()
    varying = (covariance.diagonal() > 0).nonzero().flatten()
    absolute = cosine[varying][:, varying].abs().fill_diagonal_(0)
    nearest = absolute.max(1).values if len(varying) > 1 else torch.zeros(len(varying))

    explained = sums.explained()[varying][:, varying].float().fill_diagonal_(1)
    chosen, means = choose_intrinsic(explained, -(-len(varying) // RATIO))
    others = torch.ones(len(varying), dtype=torch.bool)
    others[chosen] = False
    made = others.nonzero().flatten()
    sources = chosen[explained[chosen][:, made].argmax(0)] if len(made) else made
    measured = {
        "constant": len(cosine) - len(varying),
        "twins_90": (nearest > 0.9).double().mean().item(),
        "twins_95": (nearest > 0.95).double().mean().item(),
        "nearest": nearest.median().item() if len(nearest) else float("nan"),
        "pairs": _strongest_pairs(cosine),
        "intrinsic": tuple(varying[chosen].tolist()),
        "ghosts": tuple(zip(varying[made].tolist(), varying[sources].tolist(), strict=True)),
        "explained": {s: means[-(-len(varying) // s) - 1].item() for s in RATIOS if len(varying)},
        "cka": linear_cka(covariance, varying[chosen], varying[made]),
    }
    return measured, varying[sources], varying[made]


def _strongest_pairs(cosine: Tensor) -> tuple[tuple[int, int, float], ...]:
    absolute = cosine.abs().triu_(1)
    pairs = []
    for _ in range(min(PAIRS_KEPT, len(cosine) // 2)):
        first, second = divmod(int(absolute.argmax()), len(cosine))
        pairs.append((first, second, cosine[first, second].item()))
        absolute[[first, second]] = -1
        absolute[:, [first, second]] = -1
    return tuple(pairs)
