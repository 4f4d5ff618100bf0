"""Options of ``ghostnets quantize``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.artefacts import FORMATS
from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_choices, check_source, check_suffix, find_network
from ghostnets.errors import ConfigurationError, DataError, require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["QuantizeCommand"]


@dataclass(frozen=True)
class QuantizeCommand(CommandOptions):
    """Quantise a trained network to int8: channels equalised, biases corrected, the most sensitive layers kept in
    float32, and, with --train-steps, trained in int8; all judged on images that they were not fitted to.

    Three quarters of the images calibrate; on the others the class that each file predicts, or its objects or the
    classes of its pixels, are compared with the original's. No labels are needed; ghostnets eval measures the files on
    labels. A checkpoint is written, which exports to int8 as found here, and beside it the files and a report.

    Examples: ghostnets quantize runs/photos-ghostnet_100/best.safetensors photos/ --out int8.safetensors
    | ghostnets quantize timm:mobilenetv2_100 photos/ --weights v2.pth --out int8.safetensors --formats engine,onnx
    """

    command: ClassVar[str] = "quantize"

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL|CHECKPOINT")]
    """A checkpoint; or, with --weights, timm:NAME or torchvision:NAME."""
    images: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IMAGES")]
    """Folder of images of the kind that the network is used on, or other data that train reads; labels are not used."""
    out: Path
    """Checkpoint to write, a .safetensors file; the int8 files and the report, FILE.json, are beside it."""
    formats: str = "engine"
    """Comma-separated formats of the int8 files: engine, onnx, openvino, executorch, litert."""
    weights: Path | None = None
    """File of the weights of a timm or torchvision network: a state dict."""
    most: int = 256
    """Maximum number of images to read."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    method: str = "percentile"
    """How ranges follow from the images while layers are measured: percentile or minmax."""
    float_share: float = 0.1
    """Largest share of the multiply-adds of layers that stay in float32; 0 keeps none."""
    train_steps: int = 0
    """Steps of quantisation-aware training: the network is distilled into its int8, on 16 images a step."""
    overwrite: bool = False
    """Overwrite existing files."""
    json: JsonOutput = False

    @property
    def source(self) -> str | Path:
        """Name of the network, or path of the checkpoint."""
        return find_network(self.network, foreign=True)

    @property
    def targets(self) -> dict[str, Path]:
        """The int8 file of each format."""
        names = [word for word in self.formats.split(",") if word]
        return {name: self.out.with_suffix(FORMATS[name].suffix) for name in names}

    def check(self) -> None:
        check_choices(
            "format", filter(None, self.formats.split(",")), [n for n, f in FORMATS.items() if "int8" in f.precisions]
        )
        check_at_least("--most", self.most, 8)
        check_at_least("--train-steps", self.train_steps, 0)
        check_at_least("--max-pixels", self.max_pixels, 1)
        check_choices("method", [self.method], ("percentile", "minmax"))
        if not 0 <= self.float_share < 1:
            raise ConfigurationError(f"--float-share is {self.float_share}; it must be from 0 to below 1.")
        check_suffix("--out", self.out, [".safetensors"])
        for path in (self.out, *self.targets.values()):
            if path.exists() and not self.overwrite:
                raise ConfigurationError(f"{path} exists; choose another name, or add --overwrite.")
        for name in self.targets:
            for library in FORMATS[name].libraries:
                require_installed(library, extra=FORMATS[name].extra)
        check_source(self.network, self.source, self.weights)
        if "://" not in self.images and not Path(self.images).exists():
            raise DataError(f"there is no folder {self.images}; pass the path of a folder of images.")
