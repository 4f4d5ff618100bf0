"""Base class of all networks in the registry, with timm's interface; variants, dilation."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.models.features import FeatureLevel, Indices, describe_levels, open_path, take_indices
from ghostnets.models.recompute import run_with_recomputation

__all__ = ["CIFAR10", "IMAGENET", "AvgMaxPool", "Benchmark", "Dilation", "Network", "Variant"]


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


class AvgMaxPool(nn.Module):
    """Mean of global average and global maximum: (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True))


class Network(nn.Module):
    """Base class of all networks: images (N, in_chans, H, W) -> logits (N, num_classes).

    All its methods and properties but ``recompute_features`` have names, arguments and meaning of timm 1.0.31.

    Attributes:
        path: Names of the modules that ``forward_features`` runs in sequence.
        head_path: Names of the modules that ``forward_head`` runs in sequence: pooling to classifier.
        feature_levels: Feature maps that a backbone can return, from high to low resolution.
        timm_levels: Feature maps that timm's ``features_only=True`` returns of such a network.
        num_features: Channels of the last feature map.
        head_features: Input features of the classifier.
        num_classes: Number of classes; 0 if the network has no classifier.
        classifier_name: Name of the classifier in the state dict.
        conv_norm_pairs: Names of convolutions and of the normalisations that directly follow them, for
            ``compress.fuse``, apart from those in ``nn.Sequential``.
        has_linear_head: Whether the layers after the pooling are linear, not 1x1 convolutions.
        has_wide_map: Whether the last level is a 1x1 expansion of the level before, at the same stride.
        is_pooled: Whether the last map is pooled; False after ``reset_classifier(0, "")``.
        grad_checkpointing: Whether blocks are computed again in the backward pass.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    if TYPE_CHECKING:  # TorchScript would read the annotations, but has no tuples of variable length
        path: tuple[str, ...]
        head_path: tuple[str, ...]
        feature_levels: tuple[FeatureLevel, ...]
        timm_levels: tuple[FeatureLevel, ...]
        num_features: int
        head_features: int
        num_classes: int
        conv_norm_pairs: tuple[tuple[str, str], ...]
    conv_norm_pairs = ()
    classifier_name = "classifier"
    head_path = ("global_pool", "conv_head", "act2", "drop", "classifier")
    has_linear_head = False
    has_wide_map = False
    __jit_unused_properties__ = ("feature_info", "head_hidden_size")

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
        self.is_pooled, self.grad_checkpointing = True, False

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """``num_chs``, ``reduction`` and ``module`` of timm's levels, which ``forward_intermediates`` returns."""
        return describe_levels(self.timm_levels)

    @property
    def head_hidden_size(self) -> int:
        """Input features of the classifier: ``head_features`` under timm's name."""
        return self.head_features

    def get_classifier(self) -> nn.Module:
        """Return the classifier; the identity if the network has none."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a random linear layer of the network's device, type and mode.

        A checkpoint does not store the pooling, and the engine has ``"avg"`` only.

        Args:
            num_classes: Number of classes; 0 removes the classifier.
            global_pool: ``"avg"``, ``"max"`` or ``"avgmax"``, the mean of both; ``""`` for none, which returns a map
                instead of features and requires ``num_classes=0``; None for the present one.

        Raises:
            ConfigurationError: The pooling is unknown, or the head requires one.
        """
        if global_pool is not None:
            self._reset_pool(global_pool)
        if num_classes and not self.is_pooled:
            raise ConfigurationError(
                f'{type(self).__name__}: {num_classes} classes require a global pooling; pass global_pool="avg".'
            )
        self.num_classes = num_classes
        weight = next(self.parameters())
        self._replace(
            self.classifier_name,
            nn.Linear(self.head_features, num_classes, device=weight.device, dtype=weight.dtype)
            if num_classes
            else nn.Identity(),
        )

    def _reset_pool(self, name: str) -> None:
        pools: dict[str, Callable[[int], nn.Module]] = {
            "avg": nn.AdaptiveAvgPool2d,
            "max": nn.AdaptiveMaxPool2d,
            "avgmax": lambda _: AvgMaxPool(),
        }
        if name == "" and not self.has_linear_head:
            self._replace(self.head_path[0], nn.Identity())
        elif name in pools:
            self._replace(self.head_path[0], pools[name](1))
        else:
            raise ConfigurationError(
                f"{type(self).__name__}: global_pool is {name!r}; it must be"
                f" {', '.join(pools)}{'' if self.has_linear_head else ' or empty'}."
            )
        self.is_pooled = name != ""

    def _replace(self, path: str, module: nn.Module) -> None:
        owner, _, name = path.rpartition(".")
        setattr(self.get_submodule(owner), name, module.train(self.training))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass instead of storing their maps: less memory, more time."""
        self.grad_checkpointing = enable

    def recompute_features(self, x: Tensor) -> Tensor:
        """``forward_features`` whose blocks are computed again in the backward pass."""
        for name in self.path:
            x = run_with_recomputation(self.get_submodule(name), x)
        return x

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last feature map and the maps of timm's levels.

        Args:
            x: Images, (N, in_chans, H, W).
            indices: Number of the last levels, or indices of levels; None for all.
            norm: No effect, since the maps are normalised.
            stop_early: Leave out the layers after the last requested level; the last map is then that level's.
            output_fmt: ``"NCHW"``.
            intermediates_only: Return the list of maps only.

        Raises:
            ConfigurationError: An index is out of range, or another format is requested.
        """
        if output_fmt != "NCHW":
            raise ConfigurationError(f'output_fmt is {output_fmt!r}; it must be "NCHW".')
        levels = [self.timm_levels[index] for index in take_indices(indices, len(self.timm_levels))]
        outputs, maps = {level.module for level in levels}, []
        path = open_path(self, self.path, levels)
        if stop_early and levels[-1] != self.timm_levels[-1]:
            end = path.index(levels[-1].module) + 1
            while isinstance(self.get_submodule(path[end]), nn.BatchNorm2d | nn.ReLU):  # belong to the stem
                end += 1
            path = path[:end]
        for name in path:
            module = self.get_submodule(name)
            x = run_with_recomputation(module, x) if self.grad_checkpointing else module(x)
            if name in outputs:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's regular expressions for the layers of a weight, by stage if ``coarse``, otherwise by block."""

    def no_weight_decay(self) -> set[str]:
        """Return the names of weights without weight decay besides biases and normalisation: none."""
        return set()


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
