"""Options of ``ghostnets ghostify``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_source, check_suffix, find_network
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.native import ENGINE, import_native
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["GhostifyCommand"]


@dataclass(frozen=True)
class GhostifyCommand(CommandOptions):
    """Compress a trained network: Ghost modules in place of convolutions, or merged channels, fitted on images.

    Three quarters of the images are fitted to; on the others the network's class is compared with the original's. No
    labels are needed. The new checkpoint runs in predict, eval and serve like any other. A report and a picture with
    the sensitivity of each layer and the agreement over budgets are written beside it.

    Examples: ghostnets ghostify runs/photos-resnet20/best.safetensors photos/ --out small.safetensors --budget 0.7
    | ghostnets ghostify torchvision:mobilenet_v2 photos/ --weights mobilenet_v2.pth --out small.safetensors
    """

    command: ClassVar[str] = "ghostify"

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL|CHECKPOINT")]
    """A checkpoint; or, with --weights, timm:NAME or torchvision:NAME."""
    images: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IMAGES")]
    """Folder of images of the kind that the network is used on, or other data that train reads; labels are not used."""
    out: Path
    """Checkpoint to write, a .safetensors file; the report is FILE.json beside it, the picture FILE.png."""
    budget: float = 0.8
    """Multiply-adds of the result, or its time, as a share of the network's."""
    unit: Literal["macs", "latency"] = "macs"
    """What budgets are shares of: macs, or latency: time of one image in the engine on one thread, measured here."""
    curve: str | None = None
    """Comma-separated further budgets to measure, for the trade-off: 0.9,0.65,0.5."""
    weights: Path | None = None
    """File of the weights of a timm or torchvision network: a state dict."""
    most: int = 512
    """Maximum number of images to read."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    heal_steps: int = 0
    """Steps of distillation from the original after the fit, of 16 images; a third of them block by block. With
    --unit macs, the same command resumes an interrupted one from FILE.heal.pt."""
    time: bool = False
    """Time one image in both networks on one thread, in the engine and, if it is installed, in OpenVINO."""
    overwrite: bool = False
    """Overwrite an existing file at --out."""
    json: JsonOutput = False

    @property
    def source(self) -> str | Path:
        """Name of the network, or path of the checkpoint."""
        return find_network(self.network, foreign=True)

    @property
    def heal_state(self) -> Path | None:
        """File of the state of healing; None without it, and with budgets of measured time, whose network varies."""
        return self.out.with_suffix(".heal.pt") if self.heal_steps and self.unit == "macs" else None

    @property
    def budgets(self) -> tuple[float, ...]:
        """All budgets, the one of the result first."""
        try:
            return self.budget, *(float(word) for word in (self.curve or "").split(",") if word)
        except ValueError as error:
            raise ConfigurationError(f"--curve is {self.curve}; give numbers such as 0.9,0.65,0.5.") from error

    def check(self) -> None:
        wrong = [budget for budget in self.budgets if not 0 < budget < 1]
        if wrong:
            raise ConfigurationError(
                f"a budget is {wrong[0]}; it must be between 0 and 1, a share of the network's cost."
            )
        check_at_least("--most", self.most, 8)
        check_at_least("--max-pixels", self.max_pixels, 1)
        check_at_least("--heal-steps", self.heal_steps, 0)
        check_suffix("--out", self.out, [".safetensors"])
        if self.out.exists() and not self.overwrite:
            raise ConfigurationError(f"{self.out} exists; choose another name, or add --overwrite.")
        if self.unit == "latency":
            import_native(ENGINE)
        check_source(self.network, self.source, self.weights)
        if "://" not in self.images and not Path(self.images).exists():
            raise DataError(f"there is no folder {self.images}; give the path of a folder of images.")
