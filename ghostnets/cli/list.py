"""``ghostnets list``: every network with its cost, its published accuracy and the weights that can be had."""

from dataclasses import dataclass
from typing import Any

import torch
import tyro
from rich.table import Table

from ghostnets.checkpoints.hub import WEIGHTS, PublishedWeights
from ghostnets.cli.output import print_json, result_console
from ghostnets.compress import reparameterize
from ghostnets.measure import Cost, count
from ghostnets.models import create_model, list_models, model_entry
from ghostnets.models.network import CIFAR10, IMAGENET
from ghostnets.models.registry import ALIASES

__all__ = ["main", "models_document"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class List:
    """List the networks: parameters, multiply-adds, published accuracy, and weights to be had.

    Example: ghostnets list
    """

    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(List, prog="ghostnets list", args=arguments)
    if command.json:
        print_json({name: _as_dict(name) for name in list_models()})
        return 0
    table = Table("network", "input", "parameters (M)", "MACs (M)", "published top-1", "source", "weights: top-1")
    for column in table.columns[1:5]:
        column.justify = "right"
    for name in list_models():
        variant, source = model_entry(name)[1:]
        weights = ", ".join(f"{w.tag}: {w.top1}" for w in WEIGHTS.get(name, ()))
        table.add_row(
            name,
            str(variant.benchmark.image_size),
            f"{variant.params:.4f}",  # the digits of the registry: rounding them again could change the last one
            f"{variant.macs:.2f}",
            f"{variant.top1} %" if variant.top1 else "-",
            source,
            weights or "-",
        )
    console = result_console()
    console.print(table)
    console.print(
        "MACs are multiply-adds of convolutions and linear layers (the papers' FLOPs) for one square colour image of"
        " the input size in pixels, V3 in training form. Accuracies were published by others, not measured here: on"
        " ImageNet, of the networks for 32 pixels on CIFAR-10."
        f" Earlier names are accepted: {', '.join(f'{old} for {new}' for old, new in ALIASES.items())}.",
        soft_wrap=True,
    )
    return 0


def models_document() -> str:
    """The text of docs/models.md: what was counted here beside what is published."""
    lines = [
        "# Networks",
        "",
        "Generated from the registry by `python scripts/make_models_doc.py`; do not edit.",
        "",
        "## Cost and accuracy",
        "",
        "Parameters and multiply-adds of convolutions and linear layers for one colour image are counted here, with",
        "`ghostnets.measure.count`; what stands under *published* was not measured here. V3 is counted in training",
        "form, and merged by `reparameterize`: the form that its published costs are of.",
    ]
    remarks: list[str] = []
    for benchmark in (IMAGENET, CIFAR10):
        size = benchmark.image_size
        lines += [
            "",
            f"### {benchmark.name}: {size} x {size} pixels, {benchmark.num_classes} classes",
            "",
            "| network | parameters | MACs | published parameters, MACs | published top-1 (%) | source |",
            "| --- | ---: | ---: | ---: | ---: | --- |",
        ]
        for name in list_models():
            _, variant, source = model_entry(name)
            if variant.benchmark != benchmark:
                continue
            training, merged = _costs(name)
            if merged is not None:
                lines.append(f"| `{name}`, training form | {_cells(training)} | - | - | |")
            label, cost = (f"`{name}`, merged", merged) if merged is not None else (f"`{name}`", training)
            published = f"{_millions(variant.published_params)}, {_millions(variant.published_macs)}"
            if variant.published_macs is None:
                published = "-"
            mark = ""
            if variant.remark:
                remarks.append(f"{len(remarks) + 1}. `{name}`: {variant.remark}.")
                mark = f" ({len(remarks)})"
            lines.append(f"| {label} | {_cells(cost)} | {published}{mark} | {variant.top1 or '-'} | {source} |")
    lines += [
        "",
        "Where what is counted is not what is published:",
        "",
        *remarks,
        "",
        "## Weights",
        "",
        "All were trained on ImageNet-1k and expect RGB images of 224 x 224, cut from the centre of an image whose",
        "shorter side is 256 (kecam: 236), normalised with ImageNet's mean and standard deviation. The interpolation",
        "is that of the published accuracy; kecam does not tell its own, so the defaults of its script are noted. The",
        "first of a network is the default. kecam is keras_cv_attention_models, which has PaddleClas's weights of 0.5x",
        "and 1.3x, and the official ones of 1.0x, as Keras files. Of the other networks no weights are published in a",
        "form that loads here.",
        "",
        "| network | tag | top-1, top-5 (%) | measured by | interpolation | licence | file |",
        "| --- | --- | ---: | --- | --- | --- | --- |",
    ]
    for name, published_weights in WEIGHTS.items():
        for weights in published_weights:
            lines.append(
                f"| `{name}` | {weights.tag} | {weights.top1}, {weights.top5 or '-'} | {weights.accuracy_source} |"
                f" {weights.evaluation.interpolation} | {weights.licence} | <{weights.url}> |"
            )
    return "\n".join(lines) + "\n"


def _costs(name: str) -> tuple[Cost, Cost | None]:
    """Of the network as it is built, and merged where that makes another of it."""
    size = model_entry(name).variant.benchmark.image_size
    with torch.device("meta"):  # shapes are enough: nothing is computed
        model = create_model(name)
        merged = reparameterize(model)
        is_another = len(merged.state_dict()) != len(model.state_dict())
        return count(model, (3, size, size)), count(merged, (3, size, size)) if is_another else None


def _cells(cost: Cost) -> str:
    return f"{cost.params / 1e6:.3f} M | {cost.macs / 1e6:.2f} M"


def _millions(value: float | None) -> str:
    return "-" if value is None else f"{value:g} M"


def _as_dict(name: str) -> dict[str, Any]:
    _, variant, source = model_entry(name)
    return {
        "params": variant.params,
        "macs": variant.macs,
        "image_size": variant.benchmark.image_size,
        "benchmark": variant.benchmark.name,
        "top1": variant.top1,
        "published_params": variant.published_params,
        "published_macs": variant.published_macs,
        "remark": variant.remark,
        "source": source,
        "weights": [_weights_as_dict(w) for w in WEIGHTS.get(name, ())],
    }


def _weights_as_dict(weights: PublishedWeights) -> dict[str, Any]:
    return {
        "tag": weights.tag,
        "url": weights.url,
        "top1": weights.top1,
        "top5": weights.top5,
        "accuracy_source": weights.accuracy_source,
        "evaluation": weights.evaluation._asdict(),
        "licence": weights.licence,
    }
