"""Options of ``ghostnets profile``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_choices, find_network

__all__ = ["PRECISIONS", "ProfileCommand"]

PRECISIONS = ("f32", "bf16")
BACKENDS = ("eager", "engine")


@dataclass(frozen=True)
class ProfileCommand(CommandOptions):
    """Profile time and peak memory of a network by kind of layer or layer by layer, in eager PyTorch or the engine.

    The machine's limits are measured first: multiply-adds per second, and bandwidth by size of the data. The share of
    the limit is a layer's lower bound (compute or memory traffic) at these limits divided by its measured time.

    Examples: ghostnets profile ghostnet_100 | ghostnets profile timm:repghostnet_100 --layers
    | ghostnets profile runs/NAME/best.safetensors --backend engine --layers
    """

    command: ClassVar[str] = "profile"

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Name of a network (ghostnets list), timm:NAME, torchvision:NAME, or a checkpoint of this project."""
    backend: str = "eager"
    """eager, or engine (time of each node of the plan, without memory)."""
    layers: bool = False
    """One row per module instead of one row per kind of layer."""
    batch: int = 1
    """Batch size."""
    threads: int = 1
    """Number of threads."""
    precision: str = "f32"
    """f32 or bf16."""
    image_size: int | None = None
    """Side of the input in pixels; the network's own by default."""
    runs: int = 30
    """Number of timed runs; medians are shown."""
    json: JsonOutput = False

    @property
    def source(self) -> str | Path:
        """Name of the network, or path of the checkpoint."""
        return find_network(self.network, foreign=True, any_task=True)

    def check(self) -> None:
        check_choices("precision", [self.precision], PRECISIONS)
        check_choices("backend", [self.backend], BACKENDS)
        for option in ("batch", "threads", "runs"):
            check_at_least(f"--{option}", getattr(self, option), 1)
        check_at_least("--image-size", self.image_size, 1)
        find_network(self.network, foreign=True, any_task=True)
