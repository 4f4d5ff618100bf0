"""``ghostnets import FILE --model NAME --to OUT``: converts weights of other implementations to a checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ghostnets.checkpoints import (
    METADATA_KEY,
    SOURCE_ALIASES,
    Checkpoint,
    detect_source,
    load_weights,
    network_arguments,
    read_weights,
    save_checkpoint,
)
from ghostnets.cli.output import print_json, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.models import create_model, model_entry, resolve_name
from ghostnets.preprocessing import Preprocessing

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class ImportCommand:
    """Convert the weights of another implementation to a checkpoint with the same outputs.

    Reads state dicts of the official implementations (V1, V2, V3, G-Ghost), of timm, of this package and of
    d-li14/ghostnet.pytorch, GhostNet files of PaddleClas (.pdparams), and GhostNet and GhostNetV2 files of
    keras_cv_attention_models (.h5; needs the extra "import"). Every tensor must match. The checkpoint stores the
    usual ImageNet preprocessing at 224 pixels.

    Example: ghostnets import GhostNet_x1_3_pretrained.pdparams --model ghostnet_130 --to ghostnet_130.safetensors
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A .safetensors, .pdparams or .h5 file, or a state dict saved by torch.save."""
    model: str
    """Name of the network (ghostnets list)."""
    to: Path
    """Checkpoint to write, a .safetensors file."""
    source: Literal["auto", "canonical", "d_li14", "printed_port", "paddleclas", "kecam"] = "auto"
    """Naming convention of the file; auto detects it. canonical: this package, official implementations, timm; d_li14:
    d-li14/ghostnet.pytorch (printed_port is its earlier name); kecam: keras_cv_attention_models."""
    key: str | None = None
    """Key of the state dict in the file, if it holds several: model takes the trained weights beside model_ema.
    Default: the averaged ones."""
    classes: Path | None = None
    """Text file with one class name per line; default: class_0001, class_0002, ..."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of the resize in preprocessing: bicubic for timm's weights (docs/models.md lists it per file)."""
    resize_to: int | None = None
    """Shorter side in pixels before the center crop; default: 256 for images of 224."""
    overwrite: bool = False
    """Overwrite an existing file at --to."""
    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(ImportCommand, prog="ghostnets import", args=arguments)
    benchmark = model_entry(command.model).variant.benchmark
    standard = Preprocessing.standard(benchmark.image_size, 3)
    preprocessing = replace(
        standard, resize_to=command.resize_to or standard.resize_to, interpolation=command.interpolation
    )
    if command.to.suffix != ".safetensors":
        raise ConfigurationError(f"--to is {command.to}; it must end in .safetensors.")
    if command.to.exists() and not command.overwrite:
        raise ConfigurationError(f"{command.to} exists; choose another name, or add --overwrite.")
    weights = read_weights(command.file, key=command.key)
    if METADATA_KEY in weights.metadata:
        raise ConfigurationError(f"{command.file} is already a checkpoint of this package; use it directly.")
    source = SOURCE_ALIASES.get(command.source, command.source)
    if source == "auto":
        source = detect_source(weights.tensors)
    network = network_arguments(command.model, weights, source=source)
    num_classes = network["num_classes"]
    if not num_classes:
        raise ConfigurationError(
            f"{command.file} has no classifier of {command.model}, which a checkpoint needs; give the weights of a"
            f" classifier, or load it in Python: load_checkpoint({command.model!r}, path)."
        )
    names = _read_classes(command.classes, num_classes) if command.classes is not None else _number_classes(num_classes)

    model = create_model(command.model, **network)
    load_weights(model, weights, source=source)
    checkpoint = Checkpoint(
        architecture=resolve_name(command.model),
        arguments=network,
        state_dict=model.state_dict(),
        class_names=names,
        preprocessing=preprocessing,
        training={"imported_from": command.file.name, "sha256": weights.sha256, "source": source},
    )
    save_checkpoint(command.to, checkpoint)

    result = {
        "checkpoint": str(command.to),
        "model": command.model,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "num_classes": num_classes,
        "classes": str(command.classes) if command.classes is not None else None,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        **checkpoint.training,
    }
    if command.json:
        print_json(result)
        return 0
    console = result_console()
    console.print(
        f"Read {command.file} ({source} names, SHA-256 {weights.sha256[:8]}...): {command.model}, {result['params']:,}"
        f" parameters, {num_classes} classes"
        f" ({f'named by {command.classes}' if command.classes is not None else f'named {names[0]} and so on'}).",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"Wrote {command.to}, for images of {preprocessing.image_size} pixels.", soft_wrap=True, markup=False)
    return 0


def _number_classes(count: int) -> tuple[str, ...]:
    return tuple(f"class_{number:04d}" for number in range(1, count + 1))


def _read_classes(path: Path, count: int) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--classes {path} cannot be read ({error}); give a UTF-8 text file.") from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if len(names) != count or "" in names:
        named = sum(map(bool, names))
        raise ConfigurationError(
            f"--classes {path} has {named} names in {len(names)} lines, the network has {count} classes;"
            " give one name per line."
        )
    return names
