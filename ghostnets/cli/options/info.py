"""Options of ``ghostnets info``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, find_network
from ghostnets.errors import ConfigurationError

__all__ = ["InfoCommand"]


@dataclass(frozen=True)
class InfoCommand(CommandOptions):
    """Show a network by stage: output, parameters, multiply-adds and activation memory, beside its plain counterpart.

    The plain counterpart is the network of the same shapes with a convolution in place of each Ghost module.

    Examples: ghostnets info ghostnet_100 | ghostnets info runs/photos-ghostnet_100/best.safetensors
    """

    command: ClassVar[str] = "info"

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL|CHECKPOINT")]
    """Name of a network (ghostnets list), or a checkpoint."""
    image_size: int | None = None
    """Height and width of the input; default: the benchmark's (224; CIFAR networks 32) or the checkpoint's."""
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
        return find_network(self.network)

    def check(self) -> None:
        check_at_least("--image-size", self.image_size, 1)
        check_at_least("--num-classes", self.num_classes, 1)
        options = {"num_classes": self.num_classes, "width": self.width, "small_input": self.small_input or None}
        given = [name for name, value in options.items() if value is not None]
        if isinstance(self.source, Path) and given:
            raise ConfigurationError(
                f"{self.network} is a checkpoint, which defines its network; leave out {', '.join(given)}."
            )
