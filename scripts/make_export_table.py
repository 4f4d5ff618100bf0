"""Makes the table of docs/export.md: every registered network exported, verified, and timed beside eager torch.

    python scripts/make_export_table.py RESULTS [--formats onnx openvino] [--only NAME ...] [--images FOLDER]
    python scripts/make_export_table.py RESULTS --time
    python scripts/make_export_table.py RESULTS --write

One file and one JSON a network and format in the folder RESULTS; what stands there is not made again, so an interrupted
run goes on. ``--time`` takes the times of these files once more, all of them in minutes: for a machine that is quiet.
Weights are random, with normalisation statistics of real images, so that the answers depend on the image. Images of the
ImageNet networks are small, as exactness does not depend on their size. ``--write`` puts the table into the document,
from what RESULTS holds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ghostnets.artefacts import open_model
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.errors import GhostNetsError
from ghostnets.export import FORMATS, export_model
from ghostnets.export.images import find_real_images
from ghostnets.export.verify import times_beside_torch
from ghostnets.files import write_text
from ghostnets.models import Network, create_model, list_models, model_entry
from ghostnets.preprocessing import Preprocessing

DOCUMENT = Path(__file__).parents[1] / "docs" / "export.md"
IMAGE_SIZE = 96
BIAS = 0.5  # ReLUs are open more often than not; else a hundred random layers make 1e-4 of float32's rounding
LOGIT_DEVIATION = 2.0  # of a random network they can be thousands, where probabilities are 0 and 1 and no others
BEGIN, END = "<!-- table: scripts/make_export_table.py -->", "<!-- end of table -->"


def make_checkpoint(name: str, path: Path, images: Path | None) -> None:
    """A network with random weights whose maps are normalised over real images, and whose logits are of usual size."""
    torch.manual_seed(0)
    benchmark = model_entry(name).variant.benchmark
    model = create_model(name)
    assert isinstance(model, Network)
    preprocessing = Preprocessing.standard(min(benchmark.image_size, IMAGE_SIZE), 3)
    classes = tuple(f"class {index}" for index in range(benchmark.num_classes))
    arguments = {"num_classes": benchmark.num_classes}
    empty = Checkpoint(name, arguments, model.state_dict(), classes, preprocessing)
    pixels = torch.from_numpy(find_real_images(empty, path, folder=images, most=8).pixels).permute(0, 3, 1, 2)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, BIAS, 0.2)
    with torch.no_grad():
        model.train()(preprocessing.normalize(pixels))
    for norm in norms:  # of channels that were zero everywhere
        assert norm.running_var is not None
        norm.running_var.clamp_(min=norm.running_var.mean().item() / 10)
    classifier = model.get_submodule(model.classifier_name)
    with torch.no_grad():
        deviation = model.eval()(preprocessing.normalize(pixels)).std()
        for weights in classifier.parameters():
            weights.mul_(LOGIT_DEVIATION / deviation)
    save_checkpoint(path, Checkpoint(name, arguments, model.state_dict(), classes, preprocessing))


def measure(name: str, format_name: str, results: Path, images: Path | None) -> dict[str, Any]:
    source = results / f"{name}.safetensors"
    if not source.exists():
        make_checkpoint(name, source, images)
    try:
        report = export_model(source, exported_file(results, name, format_name), format=format_name, images=images)
    except GhostNetsError as error:
        return {"network": name, "error": str(error)}
    return {"network": name, **json.loads(report.to_json())}


def exported_file(results: Path, name: str, format_name: str) -> Path:
    return results / f"{name}{FORMATS[format_name].suffix}"


def time_again(file: Path, results: Path) -> None:
    """Puts new times into a record."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if "error" in record:
        return
    name, size = record["network"], record["image_sizes"][0]
    model = open_model(exported_file(results, name, record["format"]), threads=1)
    image = np.random.default_rng(0).integers(0, 256, (1, *size, model.description.preprocessing.channels), np.uint8)
    network = read_checkpoint(results / f"{name}.safetensors").build()
    record["comparison"] |= times_beside_torch(model, network, image)
    write_text(file, json.dumps(record, indent=2))
    print(name, record["format"], record["comparison"]["times_as_fast"], flush=True)


def table(results: list[dict[str, Any]]) -> str:
    """Rows sorted by network; the header names what they were measured on."""
    rows = [
        "| network | format | image | MB | largest difference | same class | ms | times eager torch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    machines = set()
    for result in results:
        if "error" in result:
            rows.append(f"| `{result['network']}` | {result['format']} | | | {result['error']} | | | |")
            continue
        found = result["comparison"]
        low, middle, high = found["times_as_fast"]
        machines.add((found["runtime"], found["processor"], found["runs"]))
        rows.append(
            f"| `{result['network']}` | {result['format']} | {result['image_sizes'][0][0]} |"
            f" {result['bytes'] / 1e6:.2f} | {found['max_difference']:.1e} | {found['top1_agreement']:.0%} |"
            f" {found['seconds'][1] * 1e3:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
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
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table(records)}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--only", nargs="+", default=list_models(), metavar="NAME")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after so many")
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
                time_again(file, options.results)
            elif not options.time and not file.exists() and time.perf_counter() - start < options.seconds:
                result = {**measure(name, format_name, options.results, options.images), "format": format_name}
                write_text(file, json.dumps(result, indent=2))
                print(name, format_name, result.get("error", "verified"), flush=True)


if __name__ == "__main__":
    main()
