"""Training from Python: options of the recipe, progress, the report."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Page, make_images
from dense_data import write_boxes
from rich.console import Console

from ghostnets.checkpoints import embedded_weights, read_checkpoint
from ghostnets.data import DataSpec
from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.train import (
    METRICS,
    RECIPES,
    Callback,
    ConsoleReporter,
    Recipe,
    RunFolder,
    network,
    repeat_training,
    start,
    train_model,
)
from ghostnets.train.network import describe_initial_weights

OPTIONS = {"model": "ghost_resnet20", "epochs": 2, "batch_size": 8, "drop_rate": 0.0}


def test_train_model_from_python_writes_progress_and_report(photos: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    result = train_model(photos, **OPTIONS)
    assert result.folder == Path("runs/photos-ghost_resnet20")
    run = RunFolder(result.folder)
    expected = RECIPES["small-images"].changed(**OPTIONS, image_size=16, in_chans=3)
    assert run.read_config().recipe == expected
    page = Page(run.report.read_text(encoding="utf-8"))
    assert "ghost_resnet20 on photos" in page.text
    assert page.requests() == []
    output, errors = capfd.readouterr()
    assert output == ""
    assert "epoch   2" in errors
    assert all(metric.label in errors for metric in METRICS.values() if "classes" in metric.kinds)
    assert train_model(photos, **OPTIONS, progress=False, report=False).folder.name == "photos-ghost_resnet20-2"
    assert capfd.readouterr() == ("", "")
    assert not Path("runs/photos-ghost_resnet20-2/report.html").exists()
    again = repeat_training(result.folder, progress=False, report=False)
    assert again.checkpoint.read_bytes() == result.checkpoint.read_bytes()


def test_names_are_not_taken_for_folders_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("fashion-mnist", "embedded", "pretrained", "ghostnet_050"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.safetensors").symlink_to(embedded_weights("ghostnet_100"))
    (tmp_path / "ghostnet_050" / "best.safetensors").unlink()
    assert DataSpec("fashion-mnist").location == "fashion-mnist"
    monkeypatch.setattr(network, "find_weights", lambda name: None)
    for weights in ("embedded", "published"):
        recipe = Recipe(weights=weights, teacher="ghostnet_050", in_chans=1)
        resolved = network.resolve_recipe(recipe, DataSpec("fashion-mnist").open()).recipe
        assert (resolved.weights, resolved.teacher) == (recipe.weights, "ghostnet_050")
    resolved = network.resolve_recipe(recipe.changed(weights="./embedded"), DataSpec("fashion-mnist").open()).recipe
    assert resolved.weights == str(embedded_weights("ghostnet_100"))


def test_run_and_images_on_another_drive_are_named_by_their_absolute_paths(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on Windows."""

    def fail(path: object, start: object = None) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    open_source = DataSpec.open

    def open_then_fail(*arguments: Any, **options: Any) -> Any:
        source = open_source(*arguments, **options)
        monkeypatch.setattr(os.path, "relpath", fail)
        return source

    monkeypatch.setattr(DataSpec, "open", open_then_fail)
    output = io.StringIO()
    with ConsoleReporter(Console(file=output)) as reporter:
        result = train_model(photos, folder=tmp_path / "run", callbacks=[reporter], progress=False, **OPTIONS)
    assert f"in {tmp_path / 'run'}" in output.getvalue()
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert f"ghostnets train {photos}" in page
    assert f'href="{photos.as_uri()}/' in page


def test_stochastic_depth_is_that_of_the_recipe_whatever_the_weights_had(photos: Path, tmp_path: Path):
    train_model(photos, folder=tmp_path / "first", **OPTIONS, drop_path_rate=0.3)
    for rate in (0.0, 0.1):
        folder = tmp_path / f"run {rate}"
        train_model(
            photos, folder=folder, recipe=Recipe(**OPTIONS, weights=str(tmp_path / "first"), drop_path_rate=rate)
        )
        assert RunFolder(folder).read_config().arguments.get("drop_path_rate", 0.0) == rate


def test_changes_override_a_given_recipe(photos: Path, tmp_path: Path):
    for wrong, message in [({"epoch": 1}, "did you mean epochs"), ({"optimiser": "sgd"}, "did you mean optimizer")]:
        with pytest.raises(UnknownNameError, match=message):
            train_model(photos, folder=tmp_path / "run", **wrong)
    with pytest.raises(ConfigurationError, match="epochs is 0, expected at least 1"):
        train_model(photos, folder=tmp_path / "run", epochs=0)
    assert not (tmp_path / "run").exists()
    recipe = Recipe(**OPTIONS, lr=0.3)
    train_model(photos, folder=tmp_path / "run", recipe=recipe, epochs=1, progress=False, report=False)
    assert RunFolder(tmp_path / "run").read_config().recipe == recipe.changed(epochs=1, image_size=16, in_chans=3)


def test_data_is_opened_once_and_weights_read_once(photos: Path, tiny_run: Path, tmp_path: Path, monkeypatch):
    calls: list[str] = []

    def counted(name: str, function):
        return lambda *arguments, **options: (calls.append(name), function(*arguments, **options))[1]

    from ghostnets.data import folders
    from ghostnets.train import network

    monkeypatch.setattr(folders, "open_folder", counted("open", folders.open_folder))
    monkeypatch.setattr(network, "read_weights", counted("read", network.read_weights))
    weights = str(tiny_run / "best.safetensors")
    data = DataSpec(photos, skip_corrupt=True)
    train_model(data, folder=tmp_path / "run", weights=weights, epochs=1, batch_size=8, progress=False, report=False)
    assert sorted(calls) == ["open", "read"]


def test_callback_methods_are_called_in_order(photos: Path, tmp_path: Path):
    calls: list[str] = []

    class Recorder(Callback):
        def __getattribute__(self, name: str):
            if name.startswith("on_") and (not calls or calls[-1] != name):
                calls.append(name)
            return super().__getattribute__(name)

    train_model(photos, folder=tmp_path / "run", progress=False, callbacks=[Recorder()], report=False, **OPTIONS)
    calls = [name for name in calls if name != "on_message"]
    epoch = ["on_step_end", "on_epoch_end"]
    assert calls == ["on_read_start", "on_image_read", "on_run_start", *epoch, *epoch, "on_run_end"]


def test_console_reporter_without_notebook_widgets_prints_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    console = Console(file=io.StringIO(), force_jupyter=False)
    monkeypatch.setattr(console, "is_jupyter", True)
    assert ConsoleReporter(console).bars.disable
    assert not ConsoleReporter(Console(file=io.StringIO())).bars.disable


def test_photographs_start_from_embedded_weights_by_default(tmp_path: Path):
    data = make_images(tmp_path / "data", classes={"cat": 8, "dog": 8}, size=(70, 70))
    said: list[str] = []
    listener = Callback()
    listener.on_message = said.append  # type: ignore[method-assign]
    options = {"epochs": 1, "batch_size": 4, "image_size": 72, "lr": 1e-9, "layer_decay": 1e-3, "weight_decay": 0.0}
    transfer = train_model(data, folder=tmp_path / "a", progress=False, callbacks=[listener], report=False, **options)
    config = RunFolder(transfer.folder).read_config()
    assert said[0] == config.start
    assert said[0].startswith(
        "training ghostnet_100 from the weights that come with the package (from scratch: --weights"
    )
    assert said[0].endswith("ghostnet_100.in1k/resolve/main/model.safetensors is not cached, and HF_HUB_OFFLINE is set")
    assert (config.recipe.weights, config.preprocessing.mean) == ("embedded", (0.485, 0.456, 0.406))
    stored = read_checkpoint(embedded_weights("ghostnet_100")).state_dict["blocks.0.0.ghost1.primary_conv.0.weight"]
    trained = read_checkpoint(transfer.checkpoint).state_dict["blocks.0.0.ghost1.primary_conv.0.weight"]
    assert torch.allclose(trained, stored.float(), atol=1e-6)
    scratch = train_model(
        data, folder=tmp_path / "b", progress=False, callbacks=[listener], report=False, weights=None, **options
    )
    assert "training ghostnet_100 from scratch, with random weights" in said
    assert RunFolder(scratch.folder).read_config().recipe.weights is None


def test_network_of_initial_weights_is_that_of_the_checkpoint(photos: Path, tiny_run: Path, tmp_path: Path):
    sentence = describe_initial_weights(Recipe(model="ghostnetv3_160", weights=str(tiny_run)))
    assert sentence == f"training from {tiny_run}"
    has = read_checkpoint(tiny_run).architecture
    with pytest.raises(ConfigurationError, match=f"model is ghostnet_130, and {tiny_run} has {has}, which training"):
        train_model(photos, folder=tmp_path / "run", weights=str(tiny_run), model="ghostnet_130")


def test_classifier_alone_is_trained_from_embedded_weights(tmp_path: Path):
    """``frozen`` without a recipe was rejected, as recipes that are not used start from random weights."""
    data = make_images(tmp_path / "data", classes={"cat": 4, "dog": 4}, size=(70, 70))
    options = {"epochs": 1, "batch_size": 4, "image_size": 72, "progress": False, "report": False}
    recipe = RunFolder(train_model(data, folder=tmp_path / "a", frozen=True, **options).folder).read_config().recipe
    assert (recipe.frozen, recipe.weights, recipe.layer_decay) == (True, "embedded", 0.8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"milestones": (0.5,), "decay_rate": 0.3}, r"milestones \(0.5,\), decay_rate 0.3 \(only with schedule step\)"),
        ({"temperature": 3.0}, r"temperature 3.0 \(only with a teacher\)"),
        ({"temperature": 3.0, "teacher": "x", "distill": "features"}, r"temperature 3.0 \(only with distill labels\)"),
        ({"randaugment_magnitude": 5}, r"randaugment_magnitude 5 \(only with randaugment\)"),
        ({"frozen": True, "weights": "x", "erasing": 0.2}, r"erasing 0.2 \(only without frozen\)"),
    ],
)
def test_options_without_effect_are_rejected(photos: Path, tmp_path: Path, changes: dict[str, Any], message: str):
    for recipe in (None, Recipe(**OPTIONS)):
        with pytest.raises(ConfigurationError, match=message):
            train_model(photos, folder=tmp_path / "run", recipe=recipe, **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["folder", "boxes", "fashion-mnist"])
def test_share_for_validation_is_rejected_for_data_with_validation_images(tmp_path: Path, kind: str):
    """It was without effect, as the images of ``val/``, or those of Fashion-MNIST, were used."""
    if kind == "boxes":
        boxes = [(0, 0.5, 0.5, 0.5, 0.5)]
        data = write_boxes(tmp_path / "boxes", {"train": [boxes] * 3, "val": [boxes] * 2})
    elif kind == "folder":
        for split, count in (("train", 3), ("val", 1)):
            make_images(tmp_path / "folder" / split, classes={"cat": count, "dog": count})
        data = tmp_path / "folder"
    images = "1,000" if kind == "fashion-mnist" else "2"
    spec = DataSpec("fashion-mnist" if kind == "fashion-mnist" else data, task="detect" if kind == "boxes" else None)
    for recipe in (None, Recipe()):
        message = rf"val_share 0\.4 has no effect: {kind} has {images} validation images of its own"
        with pytest.raises(ConfigurationError, match=message):
            train_model(spec, folder=tmp_path / "run", recipe=recipe, val_share=0.4)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("size", "changes", "sentence"),
    [
        ((20, 24), {"shift": 4}, "shift 4 has no effect: not all images have the 16 x 16 pixels of the input"),
        ((16, 16), {"min_scale": 0.5}, "min_scale 0.5 has no effect: the images have 16 x 16 pixels, as the input"),
        ((20, 24), {"min_scale": 0.5}, None),
        ((16, 16), {"shift": 4}, None),
    ],
)
def test_shift_or_crop_without_effect_is_told(
    tmp_path: Path, size: tuple[int, int], changes: dict[str, Any], sentence: str | None
):
    said: list[str] = []
    listener = Callback()
    listener.on_message = said.append  # type: ignore[method-assign]
    data = make_images(tmp_path / "data", classes={"cat": 4, "dog": 4}, size=size)
    options = {**OPTIONS, "image_size": 16, "epochs": 1}
    train_model(
        data, folder=tmp_path / "run", progress=False, report=False, callbacks=[listener], **{**options, **changes}
    )
    told = [line for line in said if "no effect" in line]
    assert [line.startswith(sentence or "") for line in told] == [True] * (sentence is not None)


def test_values_of_a_recipe_may_lose_their_effect(photos: Path, tmp_path: Path):
    """As by another schedule than that of the recipe, whose milestones are not given by the user."""
    recipe = Recipe(**OPTIONS, schedule="step", milestones=(0.5,))
    train_model(photos, folder=tmp_path / "run", recipe=recipe, schedule="cosine", progress=False, report=False)


def test_default_epochs_and_size_follow_from_the_images_and_are_named(tmp_path: Path):
    data = make_images(tmp_path / "data", classes={"cat": 8, "dog": 8}, size=(70, 70))
    options = {"device": "cpu", "workers": 0}
    config = start._resolve(data, None, {"weights": "embedded"}, **options).config
    assert config.recipe.epochs == 20
    assert "; 20 epochs at 160 pixels, for 12 training images (others: --epochs, --image-size)" in config.start
    config = start._resolve(data, None, {"weights": "embedded", "epochs": 3}, **options).config
    assert (config.recipe.epochs, config.preprocessing.image_size) == (3, 160)
    assert config.start.endswith("; 160 pixels, for 12 training images (others: --image-size)")
    config = start._resolve(data, None, {"weights": "embedded", "epochs": 3, "image_size": 96}, **options).config
    assert "pixels" not in config.start
    large = make_images(tmp_path / "large", classes={"cat": 4, "dog": 4}, size=(230, 300))
    config = start._resolve(large, None, {"weights": "embedded"}, **options).config
    assert (config.recipe.image_size, config.preprocessing.image_size) == (224, 224)
    assert "; 20 epochs at 224 pixels, for 6 training images (others: --epochs, --image-size)" in config.start
    assert (
        start._resolve(data, RECIPES["transfer"].changed(weights="embedded"), {}, **options).config.recipe.epochs == 20
    )
