"""Options of ``ghostnets info``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, find_network
from ghostnets.errors import ConfigurationError
from ghostnets.models.names import DETECTOR_NAMES, SEGMENTER_NAMES

__all__ = ["InfoCommand"]


@dataclass(frozen=True)
class InfoCommand(CommandOptions):
    """Show a network by stage: output, parameters, multiply-adds and activation memory, beside its plain counterpart.

    The plain counterpart is the network of the same shapes with a convolution in place of each Ghost module.

    With --engine: instruction sets and threads that the engine finds on this machine, and for a network the fastest
    precision and number of threads, measured once.

    Examples: ghostnets info ghostnet_100 | ghostnets info ghostnet_100 --engine |
    ghostnets info runs/photos-ghostnet_100/best.safetensors
    """

    command: ClassVar[str] = "info"

    network: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="MODEL|CHECKPOINT")] = None
    """Name of a network (ghostnets list), or a checkpoint; with --engine also an engine plan, or none."""
    engine: bool = False
    """Show what the engine finds on this machine, and chooses for the network."""
    image_size: int | None = None
    """Height and width of the input; default: the benchmark's (224; CIFAR networks 32; detectors 416;
    segmentation networks 512) or the checkpoint's."""
    num_classes: int | None = None
    """Number of classes; default: the benchmark's (1000; CIFAR networks 10) or the checkpoint's."""
    width: float | None = None
    """Width multiplier; default: that of the model."""
    small_input: bool = False
    """Use the variant for images of 28 to 64 pixels."""
    json: JsonOutput = False

    @property
    def source(self) -> str | Path:
        """Name of the network, or path of the checkpoint."""
        assert self.network is not None  # after ``check``
        if self.engine and self.network.endswith(".engine"):
            return Path(self.network)
        return find_network(self.network, any_task=True)

    def check(self) -> None:
        check_at_least("--image-size", self.image_size, 1)
        check_at_least("--num-classes", self.num_classes, 1)
        if self.network is None and not self.engine:
            raise ConfigurationError("no network is named; give a name of ghostnets list, a checkpoint, or --engine.")
        options = {"num_classes": self.num_classes, "width": self.width, "small_input": self.small_input or None}
        given = [name for name, value in options.items() if value is not None]
        if self.network in DETECTOR_NAMES | SEGMENTER_NAMES and set(given) - {"num_classes"}:
            raise ConfigurationError(
                f"{self.network} has no width and no variant for small images; leave out {given[-1]}."
            )
        if self.network is not None and isinstance(self.source, Path) and given:
            raise ConfigurationError(
                f"{self.network} is a checkpoint, which defines its network; leave out {', '.join(given)}."
            )
