"""Training runs of segmentation networks: result, resume, initial weights, and data that cannot be used."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Browser, serve_folder
from dense_data import write_masks
from PIL import Image

from ghostnets.checkpoints import read_checkpoint
from ghostnets.data.masks import MaskAugmentation
from ghostnets.errors import CheckpointError, ConfigurationError, DataError
from ghostnets.measure import PixelConfusion
from ghostnets.train import Callback, InterruptedRunError, RunFolder, resume_training, train_model
from ghostnets.train.segmentation import segmentation_losses
from ghostnets.train.segmentation.network import choose_training_side

OPTIONS = {
    "model": "ghostseg_050",
    "weights": None,
    "image_size": 32,
    "batch_size": 4,
    "epochs": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks(tmp_path_factory.mktemp("data") / "fields", {"train": 8, "val": 3, "test": 2})


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
def finished(masks: Path, tmp_path_factory: pytest.TempPathFactory):
    messages = Messages()
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train_model(masks, folder=folder, callbacks=[messages], flip="both", **OPTIONS), messages.sentences


def test_run_finds_task_and_writes_checkpoint_metrics_and_report(finished):
    result, messages = finished
    run = RunFolder(result.folder)
    checkpoint = read_checkpoint(run.best, task="segment")
    assert (checkpoint.class_names, checkpoint.preprocessing.fit) == (("dark", "bright", "striped"), "stretch")
    assert any("so a segmentation network is trained" in sentence for sentence in messages)
    assert any("no pixel of striped in train" in sentence for sentence in messages)
    with run.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    assert {"val_miou", "val_pixel_accuracy", "val_loss"} < rows[0].keys()
    assert not {"val_top1", "val_map", "train_top1"} & rows[0].keys()
    assert run.read_metrics()[-1] == result.history[-1]
    stored = json.loads(run.result.read_text())
    evaluation = stored["evaluation"]
    assert stored["part"] == "test"
    assert [row["iou"] is None for row in evaluation["classes"]] == [False, False, True]
    counts = np.array(evaluation["confusion"])
    assert counts.sum() == 32 * 30  # one image is ignored, of the other 2 of 40 rows, at 32 pixels
    assert evaluation["pixel_accuracy"] == counts.trace() / counts.sum()
    assert run.read_result() == stored
    page = run.report.read_text(encoding="utf-8")
    for part in (
        "Highest overlap",
        "Without a pixel, and not in the mean: striped",
        "--task segment",
        "data:image/png",
    ):
        assert part in page


@pytest.mark.browser
def test_report_in_a_browser_shows_pictures_side_by_side_near_their_size(finished, browser: Browser):
    with serve_folder(finished[0].folder) as address:
        page = browser.open(f"{address}/report.html", viewport={"width": 1200, "height": 800})
        assert page.evaluate("document.querySelector('.gallery img').clientWidth") >= 440
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_training_crops_have_three_quarters_of_the_side_of_the_input(masks: Path, tmp_path: Path, monkeypatch):
    sides = []

    class Recorded(MaskAugmentation):
        def augment(self, *arguments):
            pixels, labels = super().augment(*arguments)
            sides.extend([pixels.shape[2:], labels.shape[1:]])
            return pixels, labels

    monkeypatch.setattr("ghostnets.train.setup.MaskAugmentation", Recorded)
    result = train_model(masks, folder=tmp_path / "run", report=False, **{**OPTIONS, "epochs": 1, "image_size": 64})
    assert set(sides) == {(48, 48)}
    assert read_checkpoint(result.checkpoint, task="segment").preprocessing.image_size == 64
    assert [choose_training_side(size) for size in (512, 384, 128, 8)] == [384, 288, 96, 16]


def test_resumed_run_has_the_same_weights_bit_for_bit(masks: Path, finished, tmp_path: Path):
    result, _ = finished
    with pytest.raises(InterruptedRunError):
        train_model(masks, folder=tmp_path / "run", report=False, callbacks=[StopAt()], flip="both", **OPTIONS)
    resume_training(tmp_path / "run", progress=False, report=False)
    before, after = (torch.load(folder / "last.pt", weights_only=True) for folder in (result.folder, tmp_path / "run"))
    for part in ("model", "average"):
        assert before[part].keys() == after[part].keys()
        assert all(torch.equal(value, after[part][name]) for name, value in before[part].items()), part


def test_network_starts_from_embedded_backbone_and_from_a_trained_network(finished):
    from ghostnets.checkpoints import create_model
    from ghostnets.train.recipes import RECIPES
    from ghostnets.train.segmentation.network import build_initial_segmenter

    recipe = RECIPES["segment"].changed(weights="embedded")
    network = build_initial_segmenter(recipe, {"num_classes": 2}, ("a", "b"), on_message=print)
    trained = create_model("ghostnet_100", pretrained="embedded").state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.backbone.state_dict().items())
    result, _ = finished
    recipe = RECIPES["segment"].changed(model="ghostseg_050", weights=str(result.checkpoint))
    other = build_initial_segmenter(recipe, {"num_classes": 1}, ("whale",), on_message=print).state_dict()
    before = read_checkpoint(result.checkpoint, task="segment").state_dict
    different = {name for name, value in other.items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in different} == {"head.low_classifier", "head.high_classifier"}
    with pytest.raises(CheckpointError, match=r"is a segmentation network .* and a classifier is needed here"):
        read_checkpoint(result.checkpoint)


def test_losses_are_means_over_labelled_pixels_and_zero_without_any():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    masks = torch.randint(0, 3, (2, 4, 5)).byte()
    masks[0, :2], masks[1] = 255, 255
    losses = segmentation_losses(logits, masks)
    log_probabilities = logits[0].log_softmax(0)
    expected = -np.mean([log_probabilities[int(masks[0, y, x]), y, x].item() for y in range(2, 4) for x in range(5)])
    assert losses[0].item() == pytest.approx(expected)
    assert losses[1].item() == 0


def test_overlap_of_a_known_confusion():
    truth = np.array([0, 0, 0, 1, 1, 255, 255], np.uint8)
    confusion = PixelConfusion.count(truth, np.array([0, 0, 1, 1, 2, 1, 2], np.uint8), 4)
    confusion += PixelConfusion.count(truth[:0], truth[:0], 4)
    assert confusion.ious == [2 / 3, 1 / 3, None, None]
    assert confusion.mean_iou == pytest.approx(0.5)
    assert confusion.pixel_accuracy == 3 / 5
    assert confusion.accuracies == [2 / 3, 1 / 2, None, None]
    with pytest.raises(ConfigurationError, match="a class is not from 0 to 1"):
        PixelConfusion.count(np.array([2]), np.array([0]), 2)


def test_options_of_classifiers_and_data_without_labels_are_rejected(masks: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"segmentation networks are trained without mixup 0\.2"):
        train_model(masks, folder=tmp_path / "run", **OPTIONS, mixup=0.2)
    with pytest.raises(ConfigurationError, match="ghostdet_100 is not a segmentation network"):
        train_model(masks, folder=tmp_path / "run", **{**OPTIONS, "model": "ghostdet_100"})
    with pytest.raises(ConfigurationError, match="fashion-mnist has no masks"):
        train_model(task="segment", folder=tmp_path / "run", **OPTIONS)
    with pytest.raises(
        ConfigurationError, match="ghostseg_050 is a segmentation network, and fashion-mnist has classes"
    ):
        train_model(folder=tmp_path / "run", **OPTIONS)
    empty = tmp_path / "empty"
    for folder in ("images", "masks"):
        (empty / folder).mkdir(parents=True)
        Image.new("L", (8, 8), 255).save(empty / folder / "a.png")
    (empty / "classes.txt").write_text("dark\n")
    with pytest.raises(DataError, match="all pixels of the training masks of empty are ignored"):
        train_model(empty, folder=tmp_path / "run", **OPTIONS)
    Image.new("L", (8, 8), 0).save(empty / "masks" / "a.png")
    for folder in ("images", "masks"):
        Image.new("L", (8, 8), 0).save(empty / folder / "b.png")
    with pytest.raises(DataError, match="all labelled pixels of the training masks of empty are dark, so there is"):
        train_model(empty, folder=tmp_path / "run", **OPTIONS)
    unjudged = shutil.copytree(masks, tmp_path / "unjudged")
    for path in (unjudged / "val" / "masks").iterdir():
        Image.new("L", (48, 40), 255).save(path)
    with pytest.raises(DataError, match="3 validation images of unjudged: all pixels of the masks are ignored"):
        train_model(unjudged, folder=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()
