"""NanoDet-Plus-m here and in ncnn: predictions, and mean average precision on labelled images.

    pip install ncnn
    python benchmarks/detection.py --param nanodet-plus-m_416.param --data FOLDER

FOLDER holds images with the 80 classes of COCO in any layout that ``open_boxes`` reads; the last split is measured.
Images are stretched to the input, as in the training of the network. Both networks get the same pixels, and the same
functions turn their predictions into boxes.
"""

import argparse
from pathlib import Path

import ncnn
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ghostnets.checkpoints import load_ncnn
from ghostnets.data.boxes import BoxAnnotations, open_boxes
from ghostnets.measure import AveragePrecision, DetectionMetrics, ImageDetections, ImageTruth
from ghostnets.models.detection import Detector, create_detector, decode_boxes, select_boxes
from ghostnets.preprocessing import Preprocessing, decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--param", type=Path, required=True, help=".param file, with the .bin file next to it")
    parser.add_argument("--data", type=Path, required=True, help="labelled images of COCO's classes")
    parser.add_argument("--size", type=int, default=416, help="height and width of the input")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = create_detector("nanodet_plus_m")
    load_ncnn(detector, options.param)
    net = ncnn.Net()
    net.opt.num_threads = 1
    if net.load_param(str(options.param)) or net.load_model(str(options.param.with_suffix(".bin"))):
        raise SystemExit(f"ncnn cannot load {options.param}")
    source = open_boxes(options.data)
    split, images = list(source.splits.items())[-1]
    measures = {"ghostnets": AveragePrecision(80), "ncnn": AveragePrecision(80)}
    differences = []
    for image in images:
        inputs = read_input(image, options.size)
        with torch.no_grad():
            own = detector(inputs[None])[0]
        other = run_ncnn(net, inputs)
        differences.append((torch.cat([own[:, :80].sigmoid(), own[:, 80:]], 1) - other).abs().max().item())
        other = torch.cat([other[:, :80].logit(), other[:, 80:]], 1)
        for measure, predictions in zip(measures.values(), (own, other), strict=True):
            add_image(measure, detector, predictions, image, options.size)
    print(f"{len(images)} images of {source.name}, {split}; input {options.size} x {options.size}")
    print(f"torch {torch.__version__}, ncnn {ncnn.__version__}; largest difference {max(differences):.2g}")
    for name, measure in measures.items():
        print_metrics(name, measure.metrics())


def read_input(image: BoxAnnotations, size: int) -> Tensor:
    """The image stretched to the input, normalised, float32 (3, size, size)."""
    pixels = decode(image.path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return Preprocessing.standard(size, 3).normalize(tensor[None])[0].contiguous()


def run_ncnn(net: ncnn.Net, inputs: Tensor) -> Tensor:
    """Scores and distances of ncnn, float32 (P, 112)."""
    bgr, extractor = np.ascontiguousarray(inputs.flip(0).numpy()), net.create_extractor()
    extractor.input("data", ncnn.Mat(bgr))
    _, output = extractor.extract("output")
    return torch.from_numpy(np.array(output))


def add_image(
    measure: AveragePrecision, detector: Detector, predictions: Tensor, image: BoxAnnotations, size: int
) -> None:
    boxes, scores = decode_boxes(predictions[None], (size, size), detector.strides, bins=detector.bins)
    found = select_boxes(boxes[0], scores[0])
    scale = np.array([*image.size, *image.size]) / size
    measure.add(
        ImageDetections(found.boxes.numpy() * scale, found.scores.numpy(), found.labels.numpy()),
        ImageTruth(image.boxes, image.labels, image.is_crowd, image.areas),
    )


def print_metrics(name: str, metrics: DetectionMetrics) -> None:
    values = {
        "mAP": metrics.mean,
        "AP50": metrics.at_50,
        "AP75": metrics.at_75,
        "small": metrics.small,
        "medium": metrics.medium,
        "large": metrics.large,
    }
    print(f"{name}: " + ", ".join(f"{key} {value:.2%}" for key, value in values.items() if value is not None))


if __name__ == "__main__":
    main()
