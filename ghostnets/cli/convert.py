"""``ghostnets import FILE --model NAME --out OUT``: converts weights of other implementations to a checkpoint."""

from dataclasses import replace
from pathlib import Path

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
from ghostnets.cli.options.convert import ImportCommand
from ghostnets.cli.output import print_json, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.models import create_model, model_entry, resolve_name
from ghostnets.preprocessing import Preprocessing

__all__ = ["run"]


def run(command: ImportCommand) -> int:
    benchmark = model_entry(command.model).variant.benchmark
    standard = Preprocessing.standard(benchmark.image_size, 3)
    preprocessing = replace(
        standard, resize_to=command.resize_to or standard.resize_to, interpolation=command.interpolation
    )
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
            f"{command.file} has no classifier of {command.model}, which a checkpoint needs; pass the weights of a"
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
    save_checkpoint(command.out, checkpoint)

    result = {
        "checkpoint": str(command.out),
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
    )
    console.print(f"Wrote {command.out}, for images of {preprocessing.image_size} pixels.", soft_wrap=True)
    return 0


def _number_classes(count: int) -> tuple[str, ...]:
    return tuple(f"class_{number:04d}" for number in range(1, count + 1))


def _read_classes(path: Path, count: int) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # Notepad writes a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--classes {path} cannot be read ({error}); pass a UTF-8 text file.") from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if len(names) != count or "" in names:
        named = sum(map(bool, names))
        raise ConfigurationError(
            f"--classes {path} has {named} names in {len(names)} lines, the network has {count} classes;"
            " give one name per line."
        )
    return names
