"""Every Python example of the documents is run, with small stand-ins for the files and networks that the reader has."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_detector, make_images, python_examples
from PIL import Image
from torchvision.models.resnet import BasicBlock, ResNet

import ghostnets
from ghostnets.checkpoints import Checkpoint, hub, load, save_checkpoint
from ghostnets.models.segmentation import create_segmenter
from ghostnets.preprocessing import Preprocessing

ROOT = Path(ghostnets.__file__).parents[1]
Names = dict[str, Any]

ELSEWHERE = {  # text of an example: the test that runs it
    "load_ncnn": "tests/checkpoints/sources/test_ncnn.py",
    "tritonclient": "tests/serve/test_inference_protocol.py",
    "from torchvision.models.detection": "tests/models/detection/test_torchvision_recipes.py",
}


def write_classifier(path: Path) -> None:
    arguments = {"width": 0.1, "num_classes": 2}
    weights = ghostnets.create_model("ghostnet_100", **arguments).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        path, Checkpoint("ghostnet_100", arguments, weights, ("dark", "light"), Preprocessing.standard(32, 3))
    )


def prepare_readme() -> Names:
    make_images(Path("photos"), classes={"dark": 200, "light": 200})  # enough for 60 steps
    Path("new").mkdir()
    with Image.open("photos/dark/000.png") as dark:
        dark.save("new/one.jpg")
    torch.save(ghostnets.create_model("ghostnet_100").state_dict(), "state_dict_73.98.pth")
    return {}


def check_readme(names: Names) -> None:
    assert names["prediction"].classes[0] == "dark"
    assert 0.5 < names["prediction"].probabilities[0] <= 1


def prepare_compression() -> Names:
    return {"model": ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4).eval(), "images": torch.rand(8, 3, 32, 32)}


def check_compression(names: Names) -> None:
    assert Path("heal.pt").is_file()
    assert names["session"](names["images"].numpy()).shape == (8, 4)


def prepare_detection() -> Names:
    generator = np.random.default_rng(0)
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            Path("aquarium", split, kind).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(generator.integers(0, 255, (48, 64, 3), np.uint8)).save(
                f"aquarium/{split}/images/{index}.png"
            )
            Path(f"aquarium/{split}/labels/{index}.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.3 0.3 0.4 0.4\n")
    text = "train: train/images\nval: valid/images\nnames: [fish, shark]\n"
    Path("aquarium/data.yaml").write_text(text)
    Image.new("RGB", (80, 60)).save("photo.jpg")
    return {}


def check_detection(names: Names) -> None:
    assert names["average_precision"].metrics().at_75 == 1  # an IoU of 0.9
    assert names["sample"].pixels.shape == (3, 320, 320)
    assert names["losses"].total.isfinite()
    assert names["result"].checkpoint.is_file()
    assert Path("detector.pt").is_file()


def prepare_cells() -> Names:
    Path("runs/bccd-ghostdet_100").mkdir(parents=True)
    make_detector(Path("runs/bccd-ghostdet_100/best.safetensors"))
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 90, 3), np.uint8)).save("smear.jpg")
    return {}


def check_cells(names: Names) -> None:
    assert 0 < names["counts"].total() <= 100
    assert set(names["counts"]) <= {"fish", "shark"}


def prepare_engine() -> Names:
    write_classifier(Path("runs/photos-ghostnet_100/best.safetensors"))
    model = ghostnets.create_model("ghostnet_100", width=0.1).eval()
    return {"model": model, "images": np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)}


def check_engine(names: Names) -> None:
    assert names["logits"].shape == (2, 2)
    assert names["features"].shape[0] == 2
    assert [len(level.shape) for level in names["maps"]] == [4] * 5
    assert Path("net.engine").is_file()


def prepare_files() -> Names:
    """Of docs/export.md and docs/predict.md."""
    write_classifier(Path("best.safetensors"))
    make_images(Path("photos"), classes={"dark": 4, "light": 4}, size=(40, 36))
    image = Image.open("photos/dark/000.png")
    image.save("photo.jpg")
    pixels = np.asarray(image.resize((32, 32)))
    return {"pixels": pixels, "pil_image": image}


def check_export(names: Names) -> None:
    assert names["report"].comparison.top1_agreement == 1
    assert names["model"].description.class_names == ("dark", "light")
    assert names["scores"].shape == (1, 2)


def check_prediction(names: Names) -> None:
    assert len(names["prediction"].classes) == 2
    assert len(names["last"]) == 3


def prepare_port() -> Names:
    torch.save(ghostnets.create_model("ghostnet_100_d_li14").state_dict(), "port.pth")
    return {}


def check_nothing(names: Names) -> None:
    """Of examples whose statements are their own check."""


def check_library(names: Names) -> None:
    assert names["cost"].macs > 0
    assert names["low"] <= names["median"] <= names["high"]


def prepare_segmentation() -> Names:
    for folder in ("images", "masks"):
        Path("aerial", folder).mkdir(parents=True)
    for index in range(6):
        mask = (np.arange(48)[None] > 12 + 4 * index).repeat(40, axis=0).astype(np.uint8)
        Image.fromarray(np.where(mask, 220, 30).astype(np.uint8)).convert("RGB").save(f"aerial/images/{index}.png")
        Image.fromarray(mask).save(f"aerial/masks/{index}.png")
    arguments = {"num_classes": 2, "channels": 16}
    weights = create_segmenter("ghostseg_050", **arguments).state_dict()
    preprocessing = Preprocessing(48, 48, fit="stretch")
    save_checkpoint(
        "aerial.safetensors", Checkpoint("ghostseg_050", arguments, weights, ("land", "sea"), preprocessing)
    )
    Image.new("RGB", (60, 50)).save("photo.jpg")
    return {}


def check_segmentation(names: Names) -> None:
    assert names["classes"].shape == (1, 200, 300)
    assert names["mask"].shape == names["scores"].shape == (50, 60)
    assert names["result"].checkpoint.is_file()


def prepare_training() -> Names:
    make_images(Path("photos"), classes={"dark": 10, "light": 10})
    Path("pets").mkdir()
    for name in ("Maine_Coon_12.jpg", "pug_3.jpg"):
        Image.new("RGB", (8, 8)).save(f"pets/{name}")
    return {}


def check_training(names: Names) -> None:
    assert Path("pets/labels.csv").read_text().split() == [
        "path,label",
        "Maine_Coon_12.jpg,Maine_Coon",
        "pug_3.jpg,pug",
    ]
    assert 0 <= names["result"].evaluation.top1 <= 1


def prepare_fused() -> Names:
    model = ghostnets.create_model("ghostnet_100", width=0.1, num_classes=2).train()
    labels = torch.tensor([0, 1])
    return {"model": model, "images": torch.rand(2, 3, 32, 32), "labels": labels} | {
        "loss_function": torch.nn.functional.cross_entropy
    }


def check_fused(names: Names) -> None:
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


FAST = "weights=None, epochs=1, batch_size=4, progress=False, report=False"


def prepare_weights() -> Names:
    for name in PUBLISHED:
        torch.save(ghostnets.create_model(name).state_dict(), f"{name}.pth")
    Image.new("RGB", (80, 60)).save("photo.jpg")
    Path("ghostnet_130.pth").rename("GhostNet_x1_3_pretrained.pdparams")  # the content decides what it is
    return {}


PUBLISHED = ("ghostnet_100", "ghostnet_130", "ghostnetv2_100")


def check_weights(names: Names) -> None:
    assert names["weights"].licence == "Apache-2.0"
    assert names["probabilities"].shape == (1, 1000)


DOCUMENTS: dict[str, tuple[Callable[[], Names], Callable[[Names], None], dict[str, str]]] = {
    # what is there before, what must hold after, and replacements that make the example fast
    "README.md": (prepare_readme, check_readme, {}),
    "docs/checkpoints.md": (prepare_weights, check_weights, {}),
    "docs/compress.md": (
        prepare_compression,
        check_compression,
        {"block_steps=100, steps=200": "block_steps=2, steps=2"},
    ),
    "docs/count_cells.md": (prepare_cells, check_cells, {}),
    "docs/detection.md": (
        prepare_detection,
        check_detection,
        {"epochs=40": f'model="ghostdet_050", image_size=64, {FAST}'},
    ),
    "docs/engine.md": (prepare_engine, check_engine, {}),
    "docs/export.md": (
        prepare_files,
        check_export,
        {
            "best.onnx": "best.engine",
            "run(pixels,": "run(pixels[None],",
            'format="onnx", precision="int8"': 'format="engine", features=True',
        },
    ),
    "docs/ghostnet.md": (prepare_port, check_nothing, {}),
    "docs/library.md": (prepare_fused, check_library, {"224": "64", "runs=50": "runs=2", "randn(8": "randn(2"}),
    "docs/predict.md": (prepare_files, check_prediction, {"classifier([Path": "last = classifier([Path"}),
    "docs/segmentation.md": (
        prepare_segmentation,
        check_segmentation,
        {"epochs=60": f'model="ghostseg_050", image_size=32, {FAST}'},
    ),
    "docs/training.md": (
        prepare_training,
        check_training,
        {
            "epochs=10": f"width=0.1, {FAST}",
            'model="ghostnet_100")': f'model="ghostnet_100", width=0.1, image_size=32, {FAST})',
            "callbacks=[": f"width=0.1, {FAST}, callbacks=[",
        },
    ),
    "docs/training_speed.md": (prepare_fused, check_fused, {}),
}


def test_every_document_with_examples_is_tested():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    names = [document.relative_to(ROOT).as_posix() for document in documents]
    here = {name for name in names if any(not runs_elsewhere(code) for _, code in python_examples(name))}
    assert here == set(DOCUMENTS)


def runs_elsewhere(code: str) -> bool:
    return any(text in code for text in ELSEWHERE)


def test_examples_that_run_elsewhere_are_named_there():
    for text, test in ELSEWHERE.items():
        assert "python_examples(" in (ROOT / test).read_text(encoding="utf-8"), text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for module in (hub, load):  # nothing is downloaded
        monkeypatch.setattr(
            module, "download", lambda location, **_: Path(re.search(r"ghostnet\w*_100", location)[0] + ".pth")
        )
    prepare, check, replacements = DOCUMENTS[document]
    names: Names = {"__name__": "example", **prepare()}
    for line, code in python_examples(document):
        if not runs_elsewhere(code):
            for old, new in replacements.items():
                code = code.replace(old, new)
            exec(compile("\n" * line + code, document, "exec"), names)
    check(names)
