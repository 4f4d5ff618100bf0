"""Redundancy of feature maps, layer by layer: similar pairs of maps, and reconstruction error by depthwise filters.

Han et al., "GhostNet: More Features from Cheap Operations" (arXiv 1911.11907, figure 1 and the table of reconstruction
errors), observe in a trained ResNet-50 that many feature maps resemble another one, and that a small depthwise filter
reconstructs one from the other with little error. This module measures both exactly (``least_squares``), for any
network and any number of images.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress import MapStatistics, PairStatistics
from ghostnets.errors import ConfigurationError
from ghostnets.explain.maps import MapLayer, find_map_layers, observe_maps

__all__ = [
    "KERNEL_SIZES",
    "RATIO",
    "LayerRedundancy",
    "Redundancy",
    "linear_cka",
    "measure_redundancy",
    "select_intrinsic",
]

KERNEL_SIZES = (1, 3, 5, 7)  # d
RATIO = 2  # s: one map in s is intrinsic
RATIOS = (2, 4, 8)
MAX_PAIRS = 12  # most similar pairs of a layer, for the gallery


@dataclass(frozen=True)
class LayerRedundancy:
    """Redundancy of one layer. Here, a ghost is any map not selected as intrinsic.

    Attributes:
        layer: Name of the Ghost module or convolution.
        kind: ``MapLayer.kind``.
        channels: Number of maps C.
        size: (H, W).
        constant: Number of maps that are constant over all images; excluded from the attributes below.
        duplicates_90, duplicates_95: Share of maps with a near-duplicate: another map with an absolute cosine above 0.9
            or 0.95, both centred by their means over all pixels of all images. Negatives count, because a 1 x 1 filter
            with a negative weight produces them.
        nearest: Median over the maps of the largest absolute cosine with another map.
        pairs: Most similar disjoint pairs, (map, map, cosine), most similar first.
        intrinsic: The ceil(C / 2) maps selected as intrinsic, in order of selection.
        ghosts: (ghost, intrinsic map that predicts it).
        errors: d -> mean over the ghosts of the variance left unexplained by the best d x d filter of their intrinsic
            map, in [0, 1]. Maps are selected and paired at d = 3; the same pairs serve every d.
        good: d -> share of ghosts with less than 10 % unexplained variance.
        explained: s -> mean explained variance of the ghosts at d = 3 if C / s maps are intrinsic.
        cka: Linear CKA between the intrinsic maps and the ghosts: 1 if they span the same space, 0 if unrelated.
    """

    layer: str
    kind: str
    channels: int
    size: tuple[int, int]
    constant: int
    duplicates_90: float
    duplicates_95: float
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
    """Redundancy of a network: its layers in execution order, and the number of images."""

    layers: tuple[LayerRedundancy, ...]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Return the format of ``numbers.json``, which calls the near-duplicates twins."""
        keys = {"duplicates_90": "twins_90", "duplicates_95": "twins_95"}
        layers = [{keys.get(key, key): value for key, value in asdict(layer).items()} for layer in self.layers]
        return {"layers": layers, "images": self.images}

    def mean(self, value: Callable[[LayerRedundancy], float]) -> float:
        """Average a quantity over the layers, weighted by their number of non-constant maps."""
        weights = [layer.channels - layer.constant for layer in self.layers]
        return sum(w * value(layer) for w, layer in zip(weights, self.layers, strict=True)) / sum(weights)


@torch.no_grad()
def measure_redundancy(
    model: nn.Module, batches: Callable[[], Iterable[Tensor]], *, on_batch: Callable[[int], None] = lambda images: None
) -> Redundancy:
    """Measure the redundancy of every layer that produces feature maps (``find_map_layers``).

    Images are streamed twice. The first pass accumulates statistics of all pairs of maps of a layer, which give the
    cosines, the R^2 of 3 x 3 filters and from it the intrinsic maps (``select_intrinsic``). The second pass accumulates
    float64 statistics of the selected pairs for all ``KERNEL_SIZES``. Memory grows with the batch size and with the
    squared channel counts, not with the number of images.

    Args:
        model: Any network, in evaluation mode.
        batches: Returns a fresh iterable of preprocessed images (N, C, H, W), all of one size, at each call.
        on_batch: Called with the batch size after each batch of both passes.

    Raises:
        ConfigurationError: No image, or no layer with several maps of more than one pixel.
    """
    first = next(iter(batches()), None)
    if first is None or not len(first):
        raise ConfigurationError("there is no image to measure redundancy on; pass at least one batch.")
    layers = find_map_layers(model, first[:1])
    if not layers:
        raise ConfigurationError(
            f"{type(model).__name__} has no layer with several feature maps of more than one pixel;"
            " choose a convolutional network or larger images."
        )

    all_pairs = {layer.name: MapStatistics(layer.channels, layer.size) for layer in layers}
    images = _stream(model, layers, batches, on_batch, lambda layer, maps: all_pairs[layer.name].add(maps))
    selected: dict[str, PairStatistics] = {}
    partial: dict[str, dict[str, Any]] = {}
    for layer in layers:
        statistics = all_pairs.pop(layer.name)
        partial[layer.name], sources, targets = _evaluate_all_pairs(statistics)
        selected[layer.name] = PairStatistics(sources, targets, layer.size, max(KERNEL_SIZES))
    _stream(model, layers, batches, on_batch, lambda layer, maps: selected[layer.name].add(maps))

    results = []
    for layer in layers:
        errors = {d: selected[layer.name].fit(d)[0] for d in KERNEL_SIZES}
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


def select_intrinsic(r_squared: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Greedily select the maps that best predict the others.

    Each step adds the map that most increases the sum over all maps of the R^2 of their best selected predictor (a
    selected map predicts itself). This facility-location objective is submodular, so the greedy value is at least
    1 - 1/e of the optimum.

    Args:
        r_squared: R^2 of predicting the column's map from the row's map, (C, C); 1 on the diagonal.
        number: Number of maps to select, at most C.

    Returns:
        Selected maps in order, int64 (number,); mean R^2 over the unselected maps after each step, float64 (number,), 1
        once all maps are selected.
    """
    best = torch.zeros(len(r_squared), dtype=r_squared.dtype)
    is_selected = torch.zeros(len(r_squared), dtype=torch.bool)
    order, means = [], []
    for _ in range(number):
        gains = (r_squared - best).clamp_(min=0).sum(1)
        gains[is_selected] = -1
        index = int(gains.argmax())
        is_selected[index] = True
        best = torch.maximum(best, r_squared[index])
        order.append(index)
        means.append(1.0 if is_selected.all() else best[~is_selected].mean().item())
    return torch.tensor(order, dtype=torch.int64), torch.tensor(means, dtype=torch.float64)


def linear_cka(scatter: Tensor, first: Tensor, second: Tensor) -> float:
    """Compute the linear CKA of two groups of maps.

    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019 (arXiv 1905.00414), equation 3
    with linear kernels: ``|X^T Y|^2 / (|X^T X| |Y^T Y|)``, Frobenius norms. Rows of X and Y are pixels of images,
    columns are maps.

    Args:
        scatter: Scatter matrix of all maps, (C, C).
        first: Indices of the maps X.
        second: Indices of the maps Y.

    Returns:
        CKA in [0, 1]; nan if all maps of a group are constant.
    """
    between = scatter[first][:, second].norm() ** 2
    within = scatter[first][:, first].norm() * scatter[second][:, second].norm()
    return (between / within).item() if within > 0 else float("nan")


def _stream(
    model: nn.Module,
    layers: list[MapLayer],
    batches: Callable[[], Iterable[Tensor]],
    on_batch: Callable[[int], None],
    callback: Callable[[MapLayer, Tensor], None],
) -> int:
    """Run all batches with ``callback`` on each layer's maps; returns the number of images."""
    images = 0
    with observe_maps(model, layers, lambda layer, maps: callback(layer, maps.cpu())):  # statistics are in float64
        for batch in batches():
            model(batch)
            images += len(batch)
            on_batch(len(batch))
    return images


def _evaluate_all_pairs(statistics: MapStatistics) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return the attributes of ``LayerRedundancy`` known after the first pass, and the (sources, targets) to fit."""
    scatter, cosine = statistics.scatter(), statistics.cosine()
    varying = (scatter.diagonal() > 0).nonzero().flatten()
    absolute = cosine[varying][:, varying].abs().fill_diagonal_(0)
    nearest = absolute.max(1).values if len(varying) > 1 else torch.zeros(len(varying))

    r_squared = statistics.r_squared()[varying][:, varying].float().fill_diagonal_(1)
    intrinsic, means = select_intrinsic(r_squared, -(-len(varying) // RATIO))
    is_ghost = torch.ones(len(varying), dtype=torch.bool)
    is_ghost[intrinsic] = False
    ghosts = is_ghost.nonzero().flatten()
    sources = intrinsic[r_squared[intrinsic][:, ghosts].argmax(0)] if len(ghosts) else ghosts
    attributes = {
        "constant": len(cosine) - len(varying),
        "duplicates_90": (nearest > 0.9).double().mean().item(),
        "duplicates_95": (nearest > 0.95).double().mean().item(),
        "nearest": nearest.median().item() if len(nearest) else float("nan"),
        "pairs": _most_similar_pairs(cosine),
        "intrinsic": tuple(varying[intrinsic].tolist()),
        "ghosts": tuple(zip(varying[ghosts].tolist(), varying[sources].tolist(), strict=True)),
        "explained": {s: means[-(-len(varying) // s) - 1].item() for s in RATIOS if len(varying)},
        "cka": linear_cka(scatter, varying[intrinsic], varying[ghosts]),
    }
    return attributes, varying[sources], varying[ghosts]


def _most_similar_pairs(cosine: Tensor) -> tuple[tuple[int, int, float], ...]:
    absolute = cosine.abs().triu_(1)
    pairs = []
    for _ in range(min(MAX_PAIRS, len(cosine) // 2)):
        first, second = divmod(int(absolute.argmax()), len(cosine))
        pairs.append((first, second, cosine[first, second].item()))
        absolute[[first, second]] = -1
        absolute[:, [first, second]] = -1
    return tuple(pairs)
