"""Generate the table of docs/export.md: every registered network exported, verified, and timed against eager torch.

    python scripts/make_export_table.py RESULTS [--formats onnx openvino] [--only NAME ...] [--images FOLDER]
    python scripts/make_export_table.py RESULTS --time
    python scripts/make_export_table.py RESULTS --write

RESULTS has one exported file and one JSON record per network and format. Existing records are skipped, so an
interrupted run can be resumed. ``--time`` repeats the timings alone, for a quiet machine. ``--write`` writes the table
from the records.

Weights are random, with normalisation statistics of real images, so that the scores depend on the image. The ImageNet
networks get small images, because numerical equivalence does not depend on their size.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ghostnets.artefacts import FORMATS, open_model
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.errors import GhostNetsError
from ghostnets.export import export_model
from ghostnets.export.images import find_sample_images
from ghostnets.export.verify import time_against_torch
from ghostnets.files import write_text
from ghostnets.models import Network, create_model, list_models, model_entry
from ghostnets.preprocessing import Preprocessing

DOCUMENT = Path(__file__).parents[1] / "docs" / "export.md"
IMAGE_SIZE = 96
NORM_BIAS = 0.5  # keeps most ReLUs active; otherwise a hundred random layers amplify float32 rounding to 1e-4
LOGIT_STD = 2.0  # otherwise logits of a random network reach thousands, and all probabilities are 0 or 1
BEGIN, END = "<!-- table: scripts/make_export_table.py -->", "<!-- end of table -->"


def make_checkpoint(name: str, path: Path, images: Path | None) -> None:
    """Save a network with random weights, normalisation statistics of real images and logits of realistic size."""
    torch.manual_seed(0)
    benchmark = model_entry(name).variant.benchmark
    model = create_model(name)
    assert isinstance(model, Network)
    preprocessing = Preprocessing.standard(min(benchmark.image_size, IMAGE_SIZE), 3)
    classes = tuple(f"class {index}" for index in range(benchmark.num_classes))
    arguments = {"num_classes": benchmark.num_classes}
    empty = Checkpoint(name, arguments, model.state_dict(), classes, preprocessing)
    pixels = torch.from_numpy(find_sample_images(empty, path, folder=images, max_images=8).pixels).permute(0, 3, 1, 2)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, NORM_BIAS, 0.2)
    with torch.no_grad():
        model.train()(preprocessing.normalize(pixels))
    for norm in norms:  # for channels that were zero everywhere
        assert norm.running_var is not None
        norm.running_var.clamp_(min=norm.running_var.mean().item() / 10)
    classifier = model.get_submodule(model.classifier_name)
    with torch.no_grad():
        deviation = model.eval()(preprocessing.normalize(pixels)).std()
        for weights in classifier.parameters():
            weights.mul_(LOGIT_STD / deviation)
    save_checkpoint(path, Checkpoint(name, arguments, model.state_dict(), classes, preprocessing))


def export_and_verify(name: str, format_name: str, results: Path, images: Path | None) -> dict[str, Any]:
    source = results / f"{name}.safetensors"
    if not source.exists():
        make_checkpoint(name, source, images)
    try:
        report = export_model(source, exported_path(results, name, format_name), format=format_name, images=images)
    except GhostNetsError as error:
        return {"network": name, "format": format_name, "error": str(error)}
    return {"network": name, **json.loads(report.to_json())}


def exported_path(results: Path, name: str, format_name: str) -> Path:
    return results / f"{name}{FORMATS[format_name].suffix}"


def repeat_timing(file: Path, results: Path) -> None:
    """Replace the timings of a record."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if "error" in record:
        return
    name, size = record["network"], record["image_sizes"][0]
    model = open_model(exported_path(results, name, record["format"]), threads=1)
    image = np.random.default_rng(0).integers(0, 256, (1, *size, model.description.preprocessing.channels), np.uint8)
    network = read_checkpoint(results / f"{name}.safetensors").build()
    record["comparison"] |= time_against_torch(model, network, image)
    write_text(file, json.dumps(record, indent=2))
    print(name, record["format"], record["comparison"]["times_as_fast"], flush=True)


def make_table(results: list[dict[str, Any]]) -> str:
    """Format the records as a table, preceded by the versions and the processor."""
    rows = [
        "| network | format | image | MB | largest difference | same class | ms | times eager torch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    machines = set()
    for result in results:
        if "error" in result:
            rows.append(f"| `{result['network']}` | {result['format']} | | | {result['error']} | | | |")
            continue
        comparison = result["comparison"]
        low, median, high = comparison["times_as_fast"]
        machines.add((comparison["runtime"], comparison["processor"], comparison["runs"]))
        rows.append(
            f"| `{result['network']}` | {result['format']} | {result['image_sizes'][0][0]} |"
            f" {result['bytes'] / 1e6:.2f} | {comparison['max_difference']:.1e} | {comparison['top1_agreement']:.0%} |"
            f" {comparison['seconds'][1] * 1e3:.2f} | {median:.2f} ({low:.2f} to {high:.2f}) |"
        )
    runtimes = ", ".join(sorted({runtime for runtime, _, _ in machines}))
    processors = ", ".join(sorted({processor for _, processor, _ in machines}))
    versions = results[0]["description"]["versions"]
    note = f"{len(results)} exports; {runtimes}; torch {versions['torch']}; one thread of an {processors}."
    return "\n".join([note, "", *rows])


def write_table(results: Path) -> None:
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*-*.json"))]
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{make_table(records)}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--only", nargs="+", default=list_models(), metavar="NAME")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no new export after this time")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    options.results.mkdir(parents=True, exist_ok=True)
    if options.write:
        write_table(options.results)
        return
    torch.set_num_threads(1)
    for name in options.only:
        for format_name in options.formats:
            file = options.results / f"{name}-{format_name}.json"
            if options.time and file.exists():
                repeat_timing(file, options.results)
            elif not options.time and not file.exists() and time.perf_counter() - start < options.seconds:
                result = export_and_verify(name, format_name, options.results, options.images)
                write_text(file, json.dumps(result, indent=2))
                print(name, format_name, result.get("error", "verified"), flush=True)


if __name__ == "__main__":
    main()
