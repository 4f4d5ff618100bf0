"""Architecture, cost and savings of a network."""

from typing import Any

import torch
from rich.table import Table
from torch import nn

from ghostnets.bench.models import DETECTOR_SIZE, SEGMENTER_SIZE
from ghostnets.checkpoints import build_network, read_checkpoint, task_of
from ghostnets.cli.options.info import InfoCommand
from ghostnets.cli.output import print_json, result_console
from ghostnets.explain import Savings, compute_savings
from ghostnets.measure import count
from ghostnets.models import create_model, model_arguments, model_entry

__all__ = ["resolve", "run"]

SIDES = {"detect": DETECTOR_SIZE, "segment": SEGMENTER_SIZE}  # of the networks that are no classifiers


def run(command: InfoCommand) -> int:
    name, network_arguments, changes, input_shape = resolve(command)
    with torch.device("meta"):  # only shapes are needed
        model = build_network(name, network_arguments, changes)
        plain = None
        if not changes and ":" not in name and task_of(name) == "classify" and "ratio" in model_arguments(name):
            plain = create_model(name, **{**network_arguments, "ratio": 1})
    savings = compute_savings(model, plain, input_shape)
    if command.json:
        print_json({"model": name, "arguments": network_arguments, **savings.to_dict()})
    else:
        _print(name, network_arguments, savings)
        _print_branches(model, savings)
    return 0


def resolve(
    command: InfoCommand,
) -> tuple[str, dict[str, Any], tuple[dict[str, Any], ...], tuple[int, int, int]]:
    """Return name, arguments, changes and input shape (C, H, W) of the requested network."""
    options: dict[str, Any] = {"num_classes": command.num_classes, "width": command.width}
    options = {key: value for key, value in options.items() if value is not None}
    if command.small_input:
        options["small_input"] = True
    source = command.source
    if isinstance(source, str) and (side := SIDES.get(task_of(source))):
        side = command.image_size or side
        return source, options, (), (3, side, side)
    if isinstance(source, str):
        benchmark = model_entry(source).variant.benchmark
        side = command.image_size or (32 if command.small_input else benchmark.image_size)
        return source, options, (), (3, side, side)
    checkpoint = read_checkpoint(source, task=None)
    preprocessing = checkpoint.preprocessing
    side = command.image_size or preprocessing.image_size
    shape = preprocessing.channels, side, side
    return checkpoint.architecture, checkpoint.arguments, checkpoint.changes, shape


def _print(name: str, arguments: dict[str, Any], savings: Savings) -> None:
    described = ", ".join(f"{key}={value}" for key, value in arguments.items())
    has_plain = savings.plain_macs is not None
    table = Table("stage", "output", "params (M)", "MACs (M)", "activations (kB)")
    if has_plain:
        table.add_column("plain params")
        table.add_column("plain MACs")
        table.add_column("MACs saved")
    for column in table.columns[2:]:
        column.justify = "right"
    for stage in savings.stages:
        cells = [stage.name, " x ".join(map(str, stage.output_shape)), _millions(stage.params), _millions(stage.macs)]
        cells.append(f"{stage.activation_bytes / 1e3:,.0f}")
        if stage.plain_macs is not None and stage.plain_params is not None:
            cells += [
                _millions(stage.plain_params),
                _millions(stage.plain_macs),
                f"{stage.plain_macs / stage.macs:.2f} x",
            ]
        table.add_row(*cells)
    table.add_section()
    total = ["all", "", _millions(savings.params), _millions(savings.macs), f"{savings.activation_bytes / 1e3:,.0f}"]
    if savings.plain_macs is not None and savings.plain_params is not None:
        total += [
            _millions(savings.plain_params),
            _millions(savings.plain_macs),
            f"{savings.plain_macs / savings.macs:.2f} x",
        ]
    table.add_row(*total)
    console = result_console()
    console.print(f"{name}({described}), one image of {' x '.join(map(str, savings.input_shape))}, float32")
    console.print(table)
    if savings.plain_module_macs and savings.theoretical_ratio:
        console.print(
            f"Ghost modules: {_millions(savings.module_macs)} M MACs, plain convolutions"
            f" {_millions(savings.plain_module_macs)} M:"
            f" {savings.plain_module_macs / savings.module_macs:.3f} times less;"
            f" equation 4 of the paper gives {savings.theoretical_ratio:.3f}.",
            soft_wrap=True,
        )
    others = ", ".join(f"{number} {kind}" for kind, number in savings.not_counted.items())
    console.print(
        "MACs are multiply-adds of convolutions and linear layers (the papers' FLOPs); activations are their outputs."
        f"{' Plain: with a convolution in place of each Ghost module.' if has_plain else ''}"
        f" Not counted: {others}, additions, concatenations. The parameters in the last row include normalisation.",
        soft_wrap=True,
    )


def _print_branches(model: nn.Module, savings: Savings) -> None:
    """Print the cost of the training form, if the network has branches."""
    training = count(model, savings.input_shape)
    if training.params != savings.params:
        result_console().print(
            f"Branches are merged here, as for inference. In training form it has {_millions(training.params)} M"
            f" parameters and {_millions(training.macs)} M MACs.",
            soft_wrap=True,
        )


def _millions(value: int) -> str:
    return f"{value / 1e6:,.3f}"
