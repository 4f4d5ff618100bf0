"""``ghostnets import FILE --model NAME --to OUT``: other people's weights become a checkpoint of this project."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from ghostnets.checkpoints import Checkpoint, load_checkpoint, read_tensors, save_checkpoint
from ghostnets.checkpoints.sources import detect_source
from ghostnets.cli.output import print_json, result_console
from ghostnets.data import Preprocessing
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import create_model, model_entry

__all__ = ["main"]

CLASSIFIERS = {"canonical": "classifier.weight", "printed_port": "classifier.4.weight"}


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Import:
    """Turn a state dict of timm, of the official implementation or of the printed port into a checkpoint.

    Every tensor must find its place. The preprocessing noted is the usual one of ImageNet at 224 pixels.

    Example: ghostnets import ghostnet_1x.pth --model ghostnet_100 --to ghostnet_100.safetensors
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A .safetensors file, or a state dict written by torch.save."""
    model: str
    """Name of the network; ghostnets list names them."""
    to: Path
    """The checkpoint to write, a .safetensors file."""
    source: Literal["auto", "canonical", "printed_port"] = "auto"
    """Whose names the file uses; auto tells by the names."""
    classes: Path | None = None
    """Text file with the names of the classes, one a line; without it they are class_0001, class_0002, ..."""
    overwrite: bool = False
    """Replace a file that stands at --to."""
    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(Import, prog="ghostnets import", args=arguments)
    model_entry(command.model)
    if command.to.suffix != ".safetensors":
        raise ConfigurationError(f"--to is {command.to}; a checkpoint is a .safetensors file.")
    if command.to.exists() and not command.overwrite:
        raise ConfigurationError(f"{command.to} exists; choose another name, or add --overwrite.")
    tensors = read_tensors(command.file)
    _check_numbers(tensors, command.file)
    source = detect_source(frozenset(tensors)) if command.source == "auto" else command.source
    num_classes = _num_classes(tensors, source, command.file)
    names = _read_classes(command.classes, num_classes) if command.classes is not None else _numbered(num_classes)

    model = create_model(command.model, num_classes=num_classes)
    load_checkpoint(model, command.file, source=source)
    _check_numbers(model.state_dict(), command.file)  # conversion can overflow, folding can divide by zero
    with command.file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    checkpoint = Checkpoint(
        architecture=command.model,
        arguments={"num_classes": num_classes},
        state_dict=model.state_dict(),
        class_names=names,
        preprocessing=Preprocessing.standard(224, 3).to_dict(),
        training={"imported_from": command.file.name, "sha256": digest, "source": source},
    )
    save_checkpoint(command.to, checkpoint)

    result = {
        "checkpoint": str(command.to),
        "model": command.model,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "num_classes": num_classes,
        "classes": str(command.classes) if command.classes is not None else None,
        "preprocessing": checkpoint.preprocessing,
        **checkpoint.training,
    }
    if command.json:
        print_json(result)
        return 0
    console = result_console()
    console.print(
        f"Read {command.file} ({source} names, SHA-256 {digest[:8]}...): {command.model}, {result['params']:,}"
        f" parameters, {num_classes} classes"
        f" ({f'named by {command.classes}' if command.classes is not None else f'named {names[0]} and so on'}).",
        soft_wrap=True,
        markup=False,
    )
    console.print(f"Wrote {command.to}, for images of 224 pixels.", soft_wrap=True, markup=False)
    return 0


def _check_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses what no trained network holds, before anything is computed with it."""
    for name, tensor in tensors.items():
        is_plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)
        # A few bytes repeated by strides of 0 would unfold to any size.
        if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path} is refused: {name} is no ordinary tensor with a number for each element.")
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise CheckpointError(
                f"{path} is refused: {name} holds numbers that are not finite, so the network could not answer;"
                " use a file from before its training failed."
            )


def _num_classes(tensors: Mapping[str, Tensor], source: str, path: Path) -> int:
    classifier = tensors.get(CLASSIFIERS[source])
    if classifier is None or classifier.ndim != 2 or not len(classifier):
        raise CheckpointError(
            f"{path} has no matrix {CLASSIFIERS[source]}, so its number of classes is unknown;"
            " expected is the state dict of a classifier."
        )
    return len(classifier)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class_{number:04d}" for number in range(1, count + 1))


def _read_classes(path: Path, count: int) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--classes {path} cannot be read ({error}); give a text file in UTF-8.") from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if len(names) != count or "" in names:
        named = sum(map(bool, names))
        raise ConfigurationError(
            f"--classes {path} has {named} names in {len(names)} lines, the network has {count} classes;"
            " give one name a line."
        )
    return names
