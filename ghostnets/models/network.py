"""What all networks of the registry have in common: their arguments, their numbers, and their use as a backbone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from ghostnets.errors import ConfigurationError

__all__ = ["CIFAR10", "IMAGENET", "Backbone", "Benchmark", "Dilation", "FeatureLevel", "Network", "Variant"]


class Benchmark(NamedTuple):
    """The task of which a variant states the accuracy, and for whose images and classes its cost is counted."""

    name: str
    image_size: int  # pixels in each direction
    num_classes: int


IMAGENET = Benchmark("ImageNet", 224, 1000)
CIFAR10 = Benchmark("CIFAR-10", 32, 10)


class Variant(NamedTuple):
    """A network by name: the arguments that make it, and its numbers."""

    arguments: Mapping[str, Any]  # of the network's class
    params: float  # millions, counted here
    macs: float  # millions of multiply-adds of convolutions and linear layers for one image, counted here
    top1: float | None = None  # published accuracy in per cent
    published_params: float | None = None  # millions, as the authors print them
    published_macs: float | None = None  # millions
    benchmark: Benchmark = IMAGENET
    remark: str = ""  # where what is counted is not what is published, and why


class FeatureLevel(NamedTuple):
    """One map that a backbone can give."""

    channels: int
    stride: int  # input pixels for each pixel of the map, in each direction
    module: str  # the module of the network whose output it is


class Network(nn.Module):
    """Base of the networks: images (N, in_chans, H, W) -> logits (N, num_classes).

    Attributes:
        path: Names of the modules that ``forward_features`` runs, in order; each takes the output of the one before.
        feature_levels: The maps a backbone can give, fine to coarse.
        num_features: Channels of the last map.
        head_features: Numbers that the last linear layer takes.
        num_classes: Size of the classifier; 0 for none.
        classifier_name: Name of the last linear layer, as in the state dict.
        has_wide_map: Whether the last level is a 1x1 convolution to many channels, of the stride of the level before.

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    if TYPE_CHECKING:  # TorchScript would read the annotations, and does not know tuples of any length
        path: tuple[str, ...]
        feature_levels: tuple[FeatureLevel, ...]
        num_features: int
        head_features: int
        num_classes: int
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
        for name, value, is_right, wanted in [
            ("num_classes", num_classes, num_classes >= 0, "at least 0"),
            ("in_chans", in_chans, in_chans >= 1, "at least 1"),
            ("drop_rate", drop_rate, 0 <= drop_rate < 1, "in [0, 1)"),
            ("drop_path_rate", drop_path_rate, 0 <= drop_path_rate < 1, "in [0, 1)"),
            ("output_stride", output_stride, output_stride in (8, 16, 32), "8, 16 or 32"),
        ]:
            if not is_right:
                raise ConfigurationError(f"{type(self).__name__}: {name} is {value}; it must be {wanted}.")
        self.num_classes = num_classes

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last linear layer by a new, randomly initialised one; 0 removes it."""
        self.num_classes = num_classes
        owner, _, name = self.classifier_name.rpartition(".")
        layer = nn.Linear(self.head_features, num_classes) if num_classes else nn.Identity()
        setattr(self.get_submodule(owner), name, layer)


class Dilation:
    """How the rows of a network come to an output stride: from there on by dilation in place of resolution.

    Row by row, ``next`` gives what the row's block is to be built with. A block that is *atrous* keeps the resolution
    though its stride is 2: it computes what the strided one does, for the pixels between as well, and everything after
    it works with twice the dilation (Chen et al., "DeepLab", arXiv 1606.00915).

    Args:
        output_stride: Input pixels for each pixel of the last map, at most.
    """

    def __init__(self, output_stride: int) -> None:
        self.output_stride, self.stride, self.dilation = output_stride, 1, 1

    def next(self, stride: int) -> dict[str, Any]:
        """``stride``, ``dilation`` and ``atrous`` of the next block, which has this stride in the strided network."""
        is_atrous = stride > 1 and self.stride >= self.output_stride
        arguments = {"stride": stride, "dilation": self.dilation, "atrous": is_atrous}
        if is_atrous:
            self.dilation *= stride
        else:
            self.stride *= stride
        return arguments


class Backbone(nn.Module):
    """The convolutional part of a network: images (N, C, H, W) -> a list of maps, fine to coarse.

    For a GhostNet, level i is the last map before the i-th halving of the resolution, the input of a feature pyramid;
    the last two levels share a resolution: the output of the last bottleneck and the wide 1x1 map after it. At width
    1.0: channels 16, 24, 40, 112, 160, 960 at strides 2, 4, 8, 16, 32, 32. For the other families, level i is the
    output of stage i.

    Layers that no requested level needs are not built in, so that distributed training has no unused parameters.
    Keys of the state dict are those of the network.

    Attributes:
        feature_levels: Channels, stride and module of each map.

    Args:
        network: The network to take apart; its layers are shared, not copied.
        out_indices: Which levels, in any order; negative numbers count from the end. All but a wide one by default.

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
                f"out_indices is {list(out_indices)}; this network has the levels 0 to {count - 1}, choose at least"
                " one."
            )
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

    def forward(self, x: Tensor) -> list[Tensor]:
        wanted = [level.module for level in self.feature_levels]
        maps = []
        for name in self.path:
            x = self.get_submodule(name)(x)
            if name in wanted:
                maps.append(x)
        return maps
