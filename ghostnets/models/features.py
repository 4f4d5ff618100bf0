"""Feature levels of a network, described as in timm."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from ghostnets.errors import ConfigurationError

__all__ = ["FeatureInfo", "FeatureLevel", "Indices", "describe_levels", "open_path", "take_indices"]

Indices = int | Sequence[int]  # the last n levels, or their indices; negative ones count from the end


class FeatureLevel(NamedTuple):
    """One feature map that a backbone can return."""

    channels: int
    stride: int  # input size divided by the size of the map
    module: str  # name of the module whose output it is


class FeatureInfo:
    """Feature levels with the methods of ``timm.models.FeatureInfo``.

    Each method takes ``idx``: None for the returned levels, an index or a list of indices for any others.

    Attributes:
        info: ``num_chs``, ``reduction``, ``module`` and ``index`` of all levels of the network.
        out_indices: Indices of the returned levels.
    """

    def __init__(self, feature_info: Sequence[dict[str, Any]], out_indices: Indices) -> None:
        self.info = [{**level, "index": index} for index, level in enumerate(feature_info)]
        self.out_indices = tuple(range(-out_indices, 0)) if isinstance(out_indices, int) else tuple(out_indices)

    def from_other(self, out_indices: Indices) -> "FeatureInfo":
        """Return a copy that selects other levels."""
        return FeatureInfo(copy.deepcopy(self.info), out_indices)

    def get(self, key: str, idx: Indices | None = None) -> Any:
        """Return one value of a level, or a list of them."""
        levels = self.get_dicts(idx=idx)
        return levels[key] if isinstance(levels, dict) else [level[key] for level in levels]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Indices | None = None) -> Any:
        """Return the values of ``keys``, by default all, of a level, or a list of such dicts."""
        if isinstance(idx, int):
            level = self.info[idx]
            return level if keys is None else {key: level[key] for key in keys}
        return [self.get_dicts(keys, index) for index in (self.out_indices if idx is None else idx)]

    def channels(self, idx: Indices | None = None) -> Any:
        """Return the number of channels of a level, or a list of them."""
        return self.get("num_chs", idx)

    def reduction(self, idx: Indices | None = None) -> Any:
        """Return the stride of a level, or a list of them."""
        return self.get("reduction", idx)

    def module_name(self, idx: Indices | None = None) -> Any:
        """Return the name of the module whose output a level is, or a list of them."""
        return self.get("module", idx)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.info[item]

    def __len__(self) -> int:
        return len(self.info)


def describe_levels(levels: Sequence[FeatureLevel]) -> list[dict[str, Any]]:
    """Describe levels as timm's ``model.feature_info`` does."""
    return [{"num_chs": level.channels, "reduction": level.stride, "module": level.module} for level in levels]


def take_indices(indices: Indices | None, count: int) -> tuple[int, ...]:
    """Resolve the indices of levels: increasing, without duplicates, from 0.

    Args:
        indices: The last n levels, their indices, or None for all.
        count: Number of levels.

    Raises:
        ConfigurationError: No level is chosen, or an index is out of range.
    """
    chosen = range(count) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
    if not len(chosen) or any(not -count <= index < count for index in chosen):
        raise ConfigurationError(
            f"out_indices is {indices if isinstance(indices, int) else list(chosen)}; choose at least one of this"
            f" network's levels 0 to {count - 1}."
        )
    return tuple(sorted({index % count for index in chosen}))


def open_path(network: nn.Module, path: Sequence[str], levels: Sequence[FeatureLevel]) -> tuple[str, ...]:
    """Return a path with its modules that contain a level replaced by their children.

    Args:
        network: Network with the modules of the path; a module that contains a level is an ``nn.Sequential``.
        path: Names of modules that run in sequence.
        levels: Levels, each the output of a module of the path or inside one.
    """

    def opened(name: str) -> Iterator[str]:
        if any(level.module.startswith(f"{name}.") for level in levels):
            for child, _ in network.get_submodule(name).named_children():
                yield from opened(f"{name}.{child}")
        else:
            yield name

    return tuple(child for name in path for child in opened(name))
