"""Write a detector to train from: backbone weights of this package, neck and head of NanoDet-Plus-m where they fit.

    python benchmarks/detection_start.py --param nanodet-plus-m_416.param --images photos/ --out start.safetensors
    ghostnets train aquarium/ --task detect --weights start.safetensors

The convolutions that read the backbone's maps have other shapes and stay random. The file has no statistics of its
normalisations; they are measured on the photographs.
"""

import argparse
from pathlib import Path

import torch
from compression_cifar import find_images

import ghostnets
from ghostnets.checkpoints import Checkpoint, load_ncnn, save_checkpoint
from ghostnets.data import spread
from ghostnets.models import Backbone
from ghostnets.models.detection import Detector, create_detector
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.folded_norms import find_folded_norms, restore_norms

NAME, BACKBONE = "ghostdet_100", "ghostnet_100"
NUM_CLASSES = 80  # of the file
NOT_FITTING = ("backbone.", "pan.reduce.")
IMAGES = 32  # on which statistics are measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--param", type=Path, required=True, help=".param file, with the .bin file next to it")
    parser.add_argument("--images", type=Path, required=True, help=f"folder of photographs, of which {IMAGES} are read")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--size", type=int, default=416, help="height and width of the input")
    options = parser.parse_args()
    preprocessing = Preprocessing.for_boxes(options.size)
    detector = create_detector(NAME, num_classes=NUM_CLASSES)
    fill(detector, load_published(options.param, options.images, preprocessing))
    classes = tuple(f"class {number}" for number in range(NUM_CLASSES))
    checkpoint = Checkpoint(NAME, {"num_classes": NUM_CLASSES}, detector.state_dict(), classes, preprocessing)
    save_checkpoint(options.out, checkpoint)


def load_published(param: Path, folder: Path, preprocessing: Preprocessing) -> Detector:
    """NanoDet-Plus-m with its weights, and the statistics of normalisation of the photographs."""
    published = create_detector("nanodet_plus_m")
    load_ncnn(published, param)
    images = torch.stack([preprocessing.read(path) for path in spread(find_images(folder), IMAGES)])
    restore_norms(published, find_folded_norms(published), preprocessing.normalize(images).split(8))
    return published


def fill(detector: Detector, published: Detector) -> None:
    """Load the backbone's weights of this package, and those of the published neck and head that fit."""
    maps = detector.backbone
    assert isinstance(maps, Backbone)
    trained = ghostnets.create_model(BACKBONE, pretrained="embedded", features_only=True, out_indices=maps.out_indices)
    maps.load_state_dict(trained.state_dict())
    fitting = {name: value for name, value in published.state_dict().items() if not name.startswith(NOT_FITTING)}
    detector.load_state_dict(fitting, strict=False)


if __name__ == "__main__":
    main()
