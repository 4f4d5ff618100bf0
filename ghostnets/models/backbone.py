"""Feature backbone of any network of the registry."""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.fx
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.models.features import FeatureInfo, Indices, describe_levels, open_path, take_indices
from ghostnets.models.network import Network
from ghostnets.models.recompute import run_with_recomputation

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """Feature extractor: images (N, C, H, W) -> list of feature maps, from high to low resolution.

    For a GhostNet, each level is the last map of its resolution, as feature pyramids use it; the last resolution has
    two, the output of the last bottleneck and its 1x1 expansion. At width 1.0 the channels are 16, 24, 40, 112, 160,
    960 at strides 2, 4, 8, 16, 32, 32. For the other families, level i is the output of stage i.

    With ``like="timm"``, the levels are those of timm's ``features_only=True``: the stem, and the end of each stage
    that reduces the resolution; for a GhostNet at width 1.0, channels 16, 24, 40, 80, 160 at strides 2, 4, 8, 16, 32.

    Layers after the last requested level are left out, so distributed training has no unused parameters. State-dict
    keys are those of the network.

    Attributes:
        feature_levels: Channels, stride and module of each returned map.
        feature_info: Description of the maps as in timm: ``channels()``, ``reduction()``, ``get_dicts()``, ...
        network_shapes: Shapes of the network's state dict by name.

    Args:
        network: Network whose layers are used (shared, not copied).
        out_indices: Indices of the levels to return, in any order, or the number of the last ones; negative indices
            count from the end. Default: all levels except a wide last map.
        like: ``"timm"`` for timm's levels; None for those of this package.

    Raises:
        ConfigurationError: An index is out of range, or ``like`` is unknown.
    """

    def __init__(
        self, network: Network, *, out_indices: Indices | None = None, like: Literal["timm"] | None = None
    ) -> None:
        super().__init__()
        if like not in (None, "timm"):
            raise ConfigurationError(f'like is {like!r}; it must be "timm", or None for the levels of this package.')
        levels = network.feature_levels if like is None else network.timm_levels
        if out_indices is None and like is None and network.has_wide_map:
            out_indices = range(len(levels) - 1)
        # Including the layers that the backbone omits, so that weights of the whole network can be loaded.
        self.network_shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        self.out_indices = take_indices(out_indices, len(levels))
        self.feature_levels = tuple(levels[index] for index in self.out_indices)
        self.feature_info = FeatureInfo(describe_levels(levels), self.out_indices)
        path = open_path(network, network.path, self.feature_levels)
        self.path = path[: path.index(self.feature_levels[-1].module) + 1]
        outputs = {level.module for level in self.feature_levels}  # returned as they are, before their normalisation
        self.conv_norm_pairs = tuple(pair for pair in network.conv_norm_pairs if pair[0] not in outputs)
        self.grad_checkpointing = False
        for name in self.path:
            *containers, leaf = name.split(".")
            owner: nn.Module = self
            for container in containers:
                if not hasattr(owner, container):
                    owner.add_module(container, nn.Module())
                owner = owner.get_submodule(container)
            owner.add_module(leaf, network.get_submodule(name))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass instead of storing their maps, as ``Network`` does."""
        self.grad_checkpointing = enable

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the backbone for TorchScript, which has no ``get_submodule``: one call for each module of the path."""
        plain = copy.copy(self)
        plain.grad_checkpointing = False
        return torch.fx.GraphModule(plain, _PathTracer(self.path).trace(plain))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [level.module for level in self.feature_levels]
        maps = []
        for name in self.path:
            module = self.get_submodule(name)
            x = run_with_recomputation(module, x) if self.grad_checkpointing else module(x)
            if name in outputs:
                maps.append(x)
        return maps


class _PathTracer(torch.fx.Tracer):
    """Traces a backbone as calls of the modules of its path."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__()
        self.calls = frozenset(path)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.calls
