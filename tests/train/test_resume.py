"""Runs of every kind of recipe, killed at random steps, end with the bits of the uninterrupted run."""

import random
from pathlib import Path

import pytest
import torch
from conftest import make_images
from quiet import resume_training, train_model
from test_run import assert_same

from ghostnets.data import open_folder, write_shards
from ghostnets.errors import RunError
from ghostnets.train import Callback, Recipe, run

RECIPE = Recipe(model="ghost_resnet20", epochs=2, batch_size=8, lr=0.02, warmup=0.2, drop_rate=0.3)

RECIPES = {
    "rmsprop": RECIPE.changed(
        optimizer="rmsprop",
        schedule="step",
        decay_epochs=0.6,
        decay_rate=0.5,
        ema_decay=0.9,
        mixup=0.4,
        cutmix=1.0,
        clip_norm=1.0,
    ),
    "adamw-fp16": RECIPE.changed(
        optimizer="adamw", schedule="linear", precision="fp16", accumulate=2, randaugment=1, erasing=0.5, decay_all=True
    ),
    "lamb-bf16": RECIPE.changed(
        optimizer="lamb", precision="bf16", drop_path_rate=0.3, class_balanced=True, channels_last=False
    ),
    "taught-labels": RECIPE.changed(teacher="TEACHER", temperature=2.0, schedule="step", milestones=(0.3, 0.8)),
    "taught-features": RECIPE.changed(teacher="TEACHER", distill="features", flip=False, shift=0, ema_decay=0.5),
    "tuned": RECIPE.changed(weights="TEACHER", layer_decay=0.7, optimizer="adamw", lr=0.001),
    "table-seen-from-above": RECIPE.changed(flip="both", rotate=180.0, color_jitter=0.3, class_weights="balanced"),
    "frozen": RECIPE.changed(weights="TEACHER", frozen=True, ema_decay=0.5),
    "multi-label": RECIPE.changed(mixup=0.4, cutmix=1.0, label_smoothing=0.1, ema_decay=0.5, accumulate=2),
}


class Killed(BaseException):
    """An exception that nothing in the package catches."""


class KillAfter(Callback):
    """Raises after a number of steps, before they are saved."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step_end(self, **_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.fixture(scope="module")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("small"), classes={"dark": 20, "light": 24}, size=(8, 8))


@pytest.fixture(scope="module")
def table(small_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [f"{image},{image.parent.name}\n" for image in sorted(small_photos.rglob("*.png"))]
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    path.write_text("path,label\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def tags(small_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = sorted(small_photos.rglob("*.png"))
    labels = [";".join(name for name in (image.parent.name, "odd") if i % 7 and (name != "odd" or i % 2))
              for i, image in enumerate(images)]  # fmt: skip
    path = tmp_path_factory.mktemp("tags") / "labels.csv"
    rows = (f"{image},{label}\n" for image, label in zip(images, labels, strict=True))
    path.write_text("path,tags\n" + "".join(rows))
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_killed_run_resumes_bit_identically(
    name: str,
    small_photos: Path,
    table: Path,
    tags: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(run, "SAVE_SECONDS", -1.0)  # after every step
    data = {"table-seen-from-above": table, "multi-label": tags}.get(name, small_photos)
    teacher = str(tiny_run / "best.safetensors")
    recipe = RECIPES[name]
    if recipe.weights or recipe.teacher:
        recipe = recipe.changed(**{"weights" if recipe.weights else "teacher": teacher})
    uninterrupted = train_model(data, folder=tmp_path / "uninterrupted", recipe=recipe)
    kills = random.Random(name).sample(range(1, 5), 2)
    with pytest.raises(Killed):
        train_model(data, folder=tmp_path / "interrupted", recipe=recipe, callbacks=[KillAfter(kills[0])])
    with pytest.raises(Killed):
        resume_training(tmp_path / "interrupted", callbacks=[KillAfter(kills[1])])
    torch.manual_seed(99)  # the random state of a new process differs
    resumed = resume_training(tmp_path / "interrupted")
    assert_same(tmp_path / "uninterrupted", tmp_path / "interrupted")
    assert uninterrupted.evaluation == resumed.evaluation


def test_resume_does_not_need_the_initial_weights(small_photos: Path, tiny_run: Path, tmp_path: Path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((tiny_run / "best.safetensors").read_bytes())
    recipe = RECIPE.changed(weights=str(weights), optimizer="adamw", epochs=1)
    with pytest.raises(Killed):
        train_model(small_photos, folder=tmp_path / "run", recipe=recipe, callbacks=[KillAfter(1)])
    weights.unlink()
    assert len(resume_training(tmp_path / "run").history) == 1


def test_killed_run_on_shards_resumes_bit_identically(
    small_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "SAVE_SECONDS", -1.0)
    write_shards(open_folder(small_photos), tmp_path / "shards", images_per_shard=6)
    train_model(tmp_path / "shards", folder=tmp_path / "uninterrupted", recipe=RECIPE)
    with pytest.raises(Killed):
        train_model(tmp_path / "shards", folder=tmp_path / "interrupted", recipe=RECIPE, callbacks=[KillAfter(3)])
    with pytest.raises(Killed):
        resume_training(tmp_path / "interrupted", callbacks=[KillAfter(4)])
    resume_training(tmp_path / "interrupted")
    assert_same(tmp_path / "uninterrupted", tmp_path / "interrupted")


class ResumeMeanwhile(Callback):
    """Tries to resume the run while it is trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sentences: list[str] = []

    def on_step_end(self, **_: object) -> None:
        if not self.sentences:
            with pytest.raises(RunError) as rejected:
                resume_training(self.folder)
            self.sentences.append(str(rejected.value))


def test_resuming_a_run_in_progress_is_rejected(small_photos: Path, tmp_path: Path):
    meanwhile = ResumeMeanwhile(tmp_path / "run")
    train_model(small_photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[meanwhile])
    assert meanwhile.sentences[0].startswith(f"{tmp_path / 'run'} is being trained by another process")
    resume_training(tmp_path / "run")  # unlocked again


def test_unfinished_files_of_a_killed_process_are_removed(small_photos: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.json.abc.partial").write_bytes(b"{")
    train_model(small_photos, folder=run, recipe=RECIPE.changed(epochs=1))
    assert not list(run.glob(".*"))
