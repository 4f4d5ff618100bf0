"""Training runs of detectors: result, resume, task by layout, and data that cannot be used."""

import csv
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Browser, serve_folder
from dense_data import write_boxes
from PIL import Image

from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.main import main
from ghostnets.data import DataSpec, find_task
from ghostnets.data.boxes import open_boxes
from ghostnets.data.boxes.folder import split_validation
from ghostnets.errors import ConfigurationError, DataError, UnknownNameError
from ghostnets.train import Callback, InterruptedRunError, RunFolder, find_learning_rate, resume_training, train_model

OPTIONS = {
    "model": "ghostdet_050",
    "weights": None,
    "image_size": 32,
    "batch_size": 4,
    "epochs": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Backgrounds, one and two boxes in an image, no box of the last class, 1,000 boxes in one image."""
    some = [[], [(0, 0.5, 0.5, 0.5, 0.5)], [(1, 0.3, 0.4, 0.5, 0.6), (0, 0.7, 0.7, 0.4, 0.4)]]
    crowded = [(index % 2, 0.3 + index * 4e-4, 0.5, 0.4, 0.5) for index in range(1000)]
    splits = {"train": [*some, *some, some[1], crowded], "val": some, "test": some[:2]}
    return write_boxes(tmp_path_factory.mktemp("data") / "boxes", splits)


class Messages(Callback):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_message(self, sentence: str) -> None:
        self.sentences.append(sentence)


class StopAt(Callback):
    """Ask the run to stop in a step, as SIGTERM does."""

    def on_step_end(self, *, epoch: int, step: int, **_: float) -> None:
        import os
        import signal

        if (epoch, step) == (1, 0):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def finished(boxes: Path, tmp_path_factory: pytest.TempPathFactory):
    messages = Messages()
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train_model(boxes, folder=folder, callbacks=[messages], **OPTIONS), messages.sentences


def test_run_finds_task_and_writes_checkpoint_metrics_and_report(finished):
    result, messages = finished
    run = RunFolder(result.folder)
    checkpoint = read_checkpoint(run.best, task="detect")
    assert (checkpoint.class_names, checkpoint.preprocessing.fit) == (("fish", "shark", "ray"), "stretch")
    assert any("labels are boxes (YOLO, data.yaml), so a detector is trained" in sentence for sentence in messages)
    assert any("2 of 8 images in train have no boxes" in sentence for sentence in messages)
    assert any("no box of ray in train" in sentence for sentence in messages)
    with run.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    assert {"val_map", "val_ap50", "val_loss"} < rows[0].keys()
    assert not {"val_top1", "val_f1_micro"} & rows[0].keys()
    assert run.read_metrics()[-1] == result.history[-1]
    stored = json.loads(run.result.read_text())
    assert stored["part"] == "test"
    assert [row["average_precision"] is None for row in stored["evaluation"]["classes"]] == [False, True, True]
    assert run.read_result() == stored
    page = run.report.read_text(encoding="utf-8")
    for part in ("Precision-recall curves", "Most mistakes", "no box of ray in train", "--task detect"):
        assert part in page


@pytest.mark.browser
def test_report_in_a_browser_shows_boxes_near_the_input_size(finished, browser: Browser):
    with serve_folder(finished[0].folder) as address:
        page = browser.open(f"{address}/report.html", viewport={"width": 1200, "height": 800})
        assert page.evaluate("document.querySelector('.gallery img').clientWidth") >= 280
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_resumed_run_has_the_same_weights_bit_for_bit(boxes: Path, finished, tmp_path: Path):
    result, _ = finished
    with pytest.raises(InterruptedRunError):
        train_model(boxes, folder=tmp_path / "run", report=False, callbacks=[StopAt()], **OPTIONS)
    resume_training(tmp_path / "run", progress=False, report=False)
    before, after = (torch.load(folder / "last.pt", weights_only=True) for folder in (result.folder, tmp_path / "run"))
    for part in ("model", "average"):
        assert before[part].keys() == after[part].keys()
        assert all(torch.equal(value, after[part][name]) for name, value in before[part].items()), part


def test_detector_starts_from_embedded_backbone_and_from_detector(finished):
    from ghostnets.checkpoints import create_model
    from ghostnets.train.detection.network import build_initial_detector
    from ghostnets.train.recipes import RECIPES

    recipe = RECIPES["detect"].changed(weights="embedded")
    detector = build_initial_detector(recipe, {"num_classes": 2}, ("a", "b"), images=(), on_message=print)
    trained = create_model("ghostnet_100", pretrained="embedded").state_dict()
    own = detector.backbone.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in own.items())
    result, _ = finished
    recipe = RECIPES["detect"].changed(model="ghostdet_050", weights=str(result.checkpoint))
    other = build_initial_detector(recipe, {"num_classes": 1}, ("whale",), images=(), on_message=print).state_dict()
    before = read_checkpoint(result.checkpoint, task="detect").state_dict
    different = {name for name, value in other.items() if not torch.equal(value, before[name])}
    assert different
    assert all(name.startswith("head.predict.") for name in different)


@pytest.mark.parametrize(("task", "model"), [("detect", "ghostdet_050"), ("segment", "ghostseg_050")])
def test_option_chooses_the_backbone_and_its_embedded_weights(task: str, model: str):
    from ghostnets.checkpoints import create_model
    from ghostnets.train.backbone_tasks import choose_backbone_weights
    from ghostnets.train.detection.network import build_initial_detector, resolve_detector
    from ghostnets.train.recipes import RECIPES
    from ghostnets.train.segmentation.network import build_initial_segmenter, resolve_segmenter

    resolve, build = {
        "detect": (resolve_detector, partial(build_initial_detector, images=())),
        "segment": (resolve_segmenter, build_initial_segmenter),
    }[task]
    source = SimpleNamespace(name="data", class_names=("a", "b"), class_counts={"train": (1, 2)}, notes=())
    recipe = RECIPES[task].changed(model=model, backbone="ghostnet_100")
    recipe, sentence = choose_backbone_weights(recipe, "ghostnet_100", new="its head is")
    assert "from the weights of ghostnet_100 that come with the package" in sentence
    recipe, arguments, _ = resolve(recipe, source)
    assert arguments == {"backbone": "ghostnet_100", "num_classes": 2}
    network = build(recipe, arguments, source.class_names, on_message=print)
    trained = create_model("ghostnet_100", pretrained="embedded").state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.backbone.state_dict().items())
    with pytest.raises(UnknownNameError, match="ghostnetv4_100"):
        resolve(recipe.changed(backbone="ghostnetv4_100", weights=None), source)


def test_backbone_of_a_trained_detector_is_kept(finished, boxes: Path, tmp_path: Path):
    result, _ = finished
    weights = {**OPTIONS, "weights": str(result.checkpoint)}
    with pytest.raises(
        ConfigurationError, match=r"backbone is ghostnet_100, and .* has ghostnet_050, which training from"
    ):
        train_model(boxes, folder=tmp_path / "run", backbone="ghostnet_100", **weights)
    with pytest.raises(ConfigurationError, match=r"model is ghostdet_130, and .* has ghostdet_050, which"):
        train_model(boxes, folder=tmp_path / "run", **{**weights, "model": "ghostdet_130"})
    messages = Messages()
    default = {name: value for name, value in weights.items() if name != "model"}
    train_model(boxes, folder=tmp_path / "run", callbacks=[messages], **{**default, "epochs": 1})
    assert f"training from the weights of {result.checkpoint}" in messages.sentences
    assert RunFolder(tmp_path / "run").read_config().recipe.model == "ghostdet_050"
    with pytest.raises(ConfigurationError, match="has classes of images, for which the whole network is trained"):
        train_model(folder=tmp_path / "run", backbone="ghostnet_100", progress=False)


def test_broken_labels_are_named(tmp_path: Path):
    rows = [[(0, 0.5, 0.5, 0.5, 0.5)], [(7, 0.5, 0.5, 0.5, 0.5)]]
    root = write_boxes(tmp_path / "boxes", {"train": rows, "val": rows[:1]})
    with pytest.raises(DataError, match=r"1 broken label[\s\S]*class 7 is unknown"):
        train_model(root, folder=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_data_without_boxes_and_options_of_classifiers_are_rejected(boxes: Path, tmp_path: Path):
    empty = write_boxes(tmp_path / "empty", {"train": [[], []]})
    with pytest.raises(DataError, match="none of the 2 training images of empty has boxes"):
        train_model(empty, folder=tmp_path / "run", **OPTIONS)
    box = [(0, 0.5, 0.5, 0.5, 0.5)]
    unjudged = write_boxes(tmp_path / "unjudged", {"train": [box, box], "val": [[], []]})
    with pytest.raises(DataError, match=r"2 validation images of unjudged: none has a box .* remove the val split"):
        train_model(unjudged, folder=tmp_path / "run", **OPTIONS)
    rare = write_boxes(tmp_path / "rare", {"train": [box, [], [], []]})
    with pytest.raises(DataError, match=r"of rare split off the training images: none has a box .* label more images"):
        train_model(rare, folder=tmp_path / "run", **OPTIONS)
    with pytest.raises(ConfigurationError, match=r"without mixup 0\.2, flip both"):
        train_model(boxes, folder=tmp_path / "run", **OPTIONS, mixup=0.2, flip="both")
    unused = {"shift": 4, "randaugment_magnitude": 3, "distill": "features", "distill_weight": 2.0, "temperature": 2.0}
    with pytest.raises(ConfigurationError, match=", ".join(f"{name} {value}" for name, value in unused.items())):
        train_model(boxes, folder=tmp_path / "run", **OPTIONS, **unused)
    for name, value, expected in (("min_scale", 0.8, "0.35 or, to disable it, 1"), ("color_jitter", 0.1, "0.4 .* 0")):
        with pytest.raises(ConfigurationError, match=f"{name} is {value}, and detectors are trained with {expected}"):
            train_model(boxes, folder=tmp_path / "run", **OPTIONS, **{name: value})
    with pytest.raises(ConfigurationError, match="ghostnet_100 is not a detector"):
        train_model(boxes, folder=tmp_path / "run", **{**OPTIONS, "model": "ghostnet_100"})
    with pytest.raises(ConfigurationError, match="no labelled boxes"):
        train_model(task="detect", folder=tmp_path / "run", **OPTIONS)


def test_too_few_images_for_a_batch_are_told_from_too_small_a_batch(boxes: Path, tmp_path: Path):
    box = [(0, 0.5, 0.5, 0.5, 0.5)]
    single = write_boxes(tmp_path / "single", {"train": [box], "val": [box]})
    with pytest.raises(
        ConfigurationError, match=r"a batch of 1 image is too small: .* needs 2 .*; add training images"
    ):
        train_model(single, folder=tmp_path / "run", **OPTIONS)
    with pytest.raises(ConfigurationError, match=r"a batch of 4 images .* and 4 accumulation steps; choose a larger"):
        train_model(boxes, folder=tmp_path / "run", **OPTIONS, accumulate=4)


def test_test_images_without_a_box_have_no_score(tmp_path: Path, capsys):
    box = [(0, 0.5, 0.5, 0.5, 0.5)]
    root = write_boxes(tmp_path / "untested", {"train": [box, box], "val": [box], "test": [[], []]})
    folder = tmp_path / "run"
    result = train_model(root, folder=folder, **OPTIONS)
    assert result.evaluation.describe_baseline().startswith("Labelled boxes: 0, of 0 classes.")
    assert json.loads((folder / "result.json").read_text())["evaluation"]["mean_average_precision"] is None
    assert main(["compare", str(folder), str(folder), "--out", str(tmp_path / "compared.html")]) == 0
    assert "no labels for mAP, test" in capsys.readouterr().out


def test_task_of_a_layout(boxes: Path, tmp_path: Path):
    assert find_task(boxes) == "detect"
    assert find_task(tmp_path) == "classify"
    root = write_boxes(tmp_path / "both", {"train": [[]]})
    for name in ("cat", "dog"):
        (root / name).mkdir()
        Image.new("RGB", (8, 8)).save(root / name / "0.png")
    with pytest.raises(DataError, match=r"folders of classes \(cat, dog\); choose --task detect or --task classify"):
        find_task(root)
    assert DataSpec(boxes, task="detect").open().task == "detect"


def test_validation_images_are_split_off_train(tmp_path: Path):
    rows = [[(index % 2, 0.5, 0.5, 0.5, 0.5)] for index in range(10)]
    source = split_validation(open_boxes(write_boxes(tmp_path / "boxes", {"train": rows})), val_share=0.2, seed=0)
    assert source.val_from_train
    assert source.split_sizes == {"train": 8, "val": 2}
    assert source.class_counts["val"] == (1, 1, 0)


def test_range_test_of_the_learning_rate_is_rejected(boxes: Path):
    with pytest.raises(
        ConfigurationError, match=r"loss of a detector varies .*omit --find-lr \(the recipe has 0.001\)"
    ):
        find_learning_rate(DataSpec(str(boxes), task="detect"), **OPTIONS)
