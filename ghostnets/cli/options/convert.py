"""Options of ``ghostnets import``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_suffix
from ghostnets.errors import CheckpointError, ConfigurationError, require_installed
from ghostnets.models.names import resolve_name

__all__ = ["ImportCommand"]


@dataclass(frozen=True)
class ImportCommand(CommandOptions):
    """Convert the weights of another implementation to a checkpoint with the same outputs.

    Reads state dicts of the official implementations (V1, V2, V3, G-Ghost), of timm, of this package and of
    d-li14/ghostnet.pytorch, GhostNet files of PaddleClas (.pdparams), and GhostNet and GhostNetV2 files of
    keras_cv_attention_models (.h5; needs the extra "import"). Every tensor must match. The checkpoint stores the
    usual ImageNet preprocessing at 224 pixels.

    Example: ghostnets import GhostNet_x1_3_pretrained.pdparams --model ghostnet_130 --out ghostnet_130.safetensors
    """

    command: ClassVar[str] = "import"
    renamed: ClassVar[Mapping[str, str]] = {"--to": "--out"}

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A .safetensors, .pdparams or .h5 file, or a state dict saved by torch.save."""
    model: str
    """Name of the network (ghostnets list)."""
    out: Path
    """Checkpoint to write, a .safetensors file."""
    source: Literal["auto", "canonical", "d_li14", "printed_port", "paddleclas", "kecam"] = "auto"
    """Naming convention of the file; auto detects it. canonical: this package, official implementations, timm; d_li14:
    d-li14/ghostnet.pytorch (printed_port is its earlier name); kecam: keras_cv_attention_models."""
    key: str | None = None
    """Key of the state dict in the file, if it holds several: model for the trained weights next to model_ema.
    Default: the averaged ones."""
    classes: Path | None = None
    """Text file with one class name per line; default: class_0001, class_0002, ..."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of the resize in preprocessing: bicubic for timm's weights (docs/models.md lists it per file)."""
    resize_to: int | None = None
    """Shorter side in pixels before the center crop; default: 256 for images of 224."""
    overwrite: bool = False
    """Overwrite an existing file at --out."""
    json: JsonOutput = False

    def check(self) -> None:
        resolve_name(self.model)
        check_suffix("--out", self.out, [".safetensors"])
        if self.out.exists() and not self.overwrite:
            raise ConfigurationError(f"{self.out} exists; choose another name, or add --overwrite.")
        if not self.file.exists():
            detail = ": the link is broken" if self.file.is_symlink() else ""
            raise CheckpointError(f"there is no checkpoint {self.file}{detail}; pass a file of weights.")
        if self.file.suffix in (".h5", ".hdf5", ".keras"):
            require_installed("h5py", extra="import")
