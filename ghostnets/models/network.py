"""Base classes of all networks in the registry: common arguments, variants, dilation, and the feature backbone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError

__all__ = ["CIFAR10", "IMAGENET", "Backbone", "Benchmark", "Dilation", "FeatureLevel", "Network", "Variant"]


class Benchmark(NamedTuple):
    """Data set of the published accuracy, whose image size and classes also define the cost."""

    name: str
    image_size: int  # height and width in pixels
    num_classes: int


IMAGENET = Benchmark("ImageNet", 224, 1000)
CIFAR10 = Benchmark("CIFAR-10", 32, 10)


class Variant(NamedTuple):
    """Arguments, cost and published figures of a named network."""

    arguments: Mapping[str, Any]  # keyword arguments of the network's class
    params: float  # millions, computed
    macs: float  # millions of multiply-adds of convolutions and linear layers for one image, computed
    top1: float | None = None  # published accuracy in per cent
    published_params: float | None = None  # millions, as the authors print them
    published_macs: float | None = None  # millions
    benchmark: Benchmark = IMAGENET
    remark: str = ""  # reason for a difference between computed and published cost


class FeatureLevel(NamedTuple):
    """One feature map that a backbone can return."""

    channels: int
    stride: int  # input size divided by the size of the map
    module: str  # name of the module whose output it is


class Network(nn.Module):
    """Base class of all networks: images (N, in_chans, H, W) -> logits (N, num_classes).

    Attributes:
        path: Names of the modules that ``forward_features`` runs in sequence.
        head: Names of the modules that ``forward_head`` runs in sequence on the last map; the last is the classifier.
        feature_levels: Feature maps that a backbone can return, from high to low resolution.
        num_features: Channels of the last feature map.
        head_features: Input features of the classifier.
        num_classes: Number of classes; 0 if the network has no classifier.
        classifier_name: Name of the classifier in the state dict.
        has_wide_map: Whether the last level is a 1x1 expansion of the level before, at the same stride.

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    if TYPE_CHECKING:  # TorchScript would read the annotations, but has no tuples of variable length
        path: tuple[str, ...]
        head: tuple[str, ...]
        feature_levels: tuple[FeatureLevel, ...]
        num_features: int
        head_features: int
        num_classes: int

        def forward_features(self, x: Tensor) -> Tensor: ...
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...

    classifier_name = "classifier"
    has_wide_map = False

    def __init__(
        self,
        *,
        num_classes: int,
        in_chans: int,
        drop_rate: float,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        for name, value, is_valid, wanted in [
            ("num_classes", num_classes, num_classes >= 0, "at least 0"),
            ("in_chans", in_chans, in_chans >= 1, "at least 1"),
            ("drop_rate", drop_rate, 0 <= drop_rate < 1, "in [0, 1)"),
            ("drop_path_rate", drop_path_rate, 0 <= drop_path_rate < 1, "in [0, 1)"),
            ("output_stride", output_stride, output_stride in (8, 16, 32), "8, 16 or 32"),
        ]:
            if not is_valid:
                raise ConfigurationError(f"{type(self).__name__}: {name} is {value}; it must be {wanted}.")
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a randomly initialised linear layer for ``num_classes`` classes; 0 removes it."""
        self.num_classes = num_classes
        owner, _, name = self.classifier_name.rpartition(".")
        layer = nn.Linear(self.head_features, num_classes) if num_classes else nn.Identity()
        setattr(self.get_submodule(owner), name, layer)


class Dilation:
    """Converts strides beyond an output stride to dilation (atrous convolution; Chen et al., arXiv 1606.00915).

    ``next`` is called for each block in order and returns its stride arguments. An *atrous* block keeps the resolution
    although its stride is 2: it computes the output of the strided block at every pixel, and all layers after it use
    twice the dilation.

    Args:
        output_stride: Maximum ratio of the input size to the size of the last map.
    """

    def __init__(self, output_stride: int) -> None:
        self.output_stride, self.stride, self.dilation = output_stride, 1, 1

    def next(self, stride: int) -> dict[str, Any]:
        """Arguments ``stride``, ``dilation`` and ``atrous`` of the next block, given its stride without dilation."""
        is_atrous = stride > 1 and self.stride >= self.output_stride
        arguments = {"stride": stride, "dilation": self.dilation, "atrous": is_atrous}
        if is_atrous:
            self.dilation *= stride
        else:
            self.stride *= stride
        return arguments


class Backbone(nn.Module):
    """Feature extractor: images (N, C, H, W) -> list of feature maps, from high to low resolution.

    For a GhostNet, each level is the last map of its resolution, as feature pyramids use it; the last resolution has
    two, the output of the last bottleneck and its 1x1 expansion. At width 1.0 the channels are 16, 24, 40, 112, 160,
    960 at strides 2, 4, 8, 16, 32, 32. For the other families, level i is the output of stage i.

    Layers after the last requested level are left out, so distributed training has no unused parameters. State-dict
    keys are those of the network.

    Attributes:
        feature_levels: Channels, stride and module of each returned map.
        network_shapes: Shapes of the network's state dict by name.

    Args:
        network: Network whose layers are used (shared, not copied).
        out_indices: Indices of the levels to return, in any order; negative indices count from the end. Default: all
            levels except a wide last map.

    Raises:
        ConfigurationError: An index is out of range.
    """

    def __init__(self, network: Network, *, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        count = len(network.feature_levels)
        if out_indices is None:
            out_indices = range(count - 1 if network.has_wide_map else count)
        if not out_indices or any(not -count <= index < count for index in out_indices):
            raise ConfigurationError(
                f"out_indices is {list(out_indices)}; choose at least one of this network's levels 0 to {count - 1}."
            )
        # Including the layers that the backbone omits, so that weights of the whole network can be loaded.
        self.network_shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        self.out_indices = tuple(sorted({index % count for index in out_indices}))
        self.feature_levels = tuple(network.feature_levels[index] for index in self.out_indices)
        self.path = network.path[: network.path.index(self.feature_levels[-1].module) + 1]
        for name in self.path:
            *containers, leaf = name.split(".")
            owner: nn.Module = self
            for container in containers:
                if not hasattr(owner, container):
                    owner.add_module(container, nn.Module())
                owner = owner.get_submodule(container)
            owner.add_module(leaf, network.get_submodule(name))

    def __prepare_scriptable__(self) -> nn.Module:
        """The same backbone for TorchScript, which has no ``get_submodule``: one call for each module of the path."""
        return torch.fx.GraphModule(self, _PathTracer(self.path).trace(self))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [level.module for level in self.feature_levels]
        maps = []
        for name in self.path:
            x = self.get_submodule(name)(x)
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
