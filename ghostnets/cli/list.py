"""``ghostnets list``: the networks with their cost, published accuracy and published weights."""

from typing import Any

import torch
from rich.table import Table

from ghostnets.checkpoints.hub import WEIGHTS, PublishedWeights
from ghostnets.cli.options.list import ListCommand
from ghostnets.cli.output import print_json, result_console
from ghostnets.compress import reparameterize
from ghostnets.errors import UnknownNameError
from ghostnets.layers import RepConv
from ghostnets.measure import Cost, count
from ghostnets.models import create_model, list_models, model_entry
from ghostnets.models.detection import list_detectors
from ghostnets.models.names import ALIASES
from ghostnets.models.network import CIFAR10, IMAGENET, Benchmark
from ghostnets.models.segmentation import list_segmenters

__all__ = ["models_document", "run"]


def run(command: ListCommand) -> int:
    names = list_models(command.pattern)
    if not names:
        raise UnknownNameError("network", command.pattern, list_models())
    if command.json:
        print_json({name: _as_dict(name) for name in names})
        return 0
    table = Table("network", "input", "parameters (M)", "MACs (M)", "published top-1", "source", "weights: top-1")
    for column in table.columns[1:5]:
        column.justify = "right"
    for name in names:
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
        "MACs are multiply-adds of convolutions and linear layers (the papers' FLOPs) for one square RGB image of"
        " the input size in pixels, V3 in training form. Accuracies are published ones, not measured here: on ImageNet,"
        " for networks with an input of 32 pixels on CIFAR-10."
        f" Detectors: {', '.join(list_detectors())}; segmentation networks: {', '.join(list_segmenters())}."
        f" Earlier names are accepted: {', '.join(f'{old} for {new}' for old, new in ALIASES.items())}.",
        soft_wrap=True,
    )
    return 0


def models_document() -> str:
    """Text of docs/models.md: computed and published cost, published accuracy, and the published weights."""
    remarks: list[str] = []
    tables = [line for benchmark in (IMAGENET, CIFAR10) for line in _benchmark_table(benchmark, remarks)]
    return "\n".join([*DOCUMENT_HEAD, *tables, *REMARKS_HEAD, *remarks, *WEIGHTS_HEAD, *_weights_table()]) + "\n"


DOCUMENT_HEAD = [
    "# Networks",
    "",
    "Generated from the registry by `python scripts/make_models_doc.py`; do not edit.",
    "",
    "## Cost and accuracy",
    "",
    "Parameters and multiply-adds of convolutions and linear layers for one RGB image are computed by",
    "`ghostnets.measure.count`; *published* figures were not measured here. V3 is counted in training form, and with",
    "its branches merged by `reparameterize`, which is the form of the published cost.",
]
REMARKS_HEAD = ["", "Where computed and published cost differ:", ""]
WEIGHTS_HEAD = [
    "",
    "## Weights",
    "",
    "All weights were trained on ImageNet-1k and expect RGB images of 224 x 224, cropped from the centre of an image",
    "whose shorter side is 256 (kecam: 236) and normalised with ImageNet's mean and standard deviation. The",
    "interpolation is that of the published accuracy; kecam does not publish it, so the defaults of its script are",
    "given. The first entry of a network is the default. kecam is keras_cv_attention_models, which has PaddleClas's",
    "weights of 0.5x and 1.3x and the official weights of 1.0x as Keras files. The other networks have no published",
    "weights in a format that can be loaded.",
    "",
    "| network | tag | top-1, top-5 (%) | measured by | interpolation | licence | file |",
    "| --- | --- | ---: | --- | --- | --- | --- |",
]


def _benchmark_table(benchmark: Benchmark, remarks: list[str]) -> list[str]:
    """Heading and table of the networks of a benchmark; appends the numbered remarks that it refers to."""
    size = benchmark.image_size
    lines = [
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
        published = "-"
        if variant.published_macs is not None:
            published = f"{_millions(variant.published_params)}, {_millions(variant.published_macs)}"
        if variant.remark:
            remarks.append(f"{len(remarks) + 1}. `{name}`: {variant.remark}.")
            published += f" ({len(remarks)})"
        lines.append(f"| {label} | {_cells(cost)} | {published} | {variant.top1 or '-'} | {source} |")
    return lines


def _weights_table() -> list[str]:
    return [
        f"| `{name}` | {weights.tag} | {weights.top1}, {weights.top5 or '-'} | {weights.accuracy_source} |"
        f" {weights.evaluation.interpolation} | {weights.licence} | <{weights.url}> |"
        for name, published in WEIGHTS.items()
        for weights in published
    ]


def _costs(name: str) -> tuple[Cost, Cost | None]:
    """Cost of a network as built, and with merged branches if it has branches."""
    size = model_entry(name).variant.benchmark.image_size
    with torch.device("meta"):  # only shapes are needed
        model = create_model(name)
        has_branches = any(isinstance(module, RepConv) for module in model.modules())
        merged = count(reparameterize(model), (3, size, size)) if has_branches else None
        return count(model, (3, size, size)), merged


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
