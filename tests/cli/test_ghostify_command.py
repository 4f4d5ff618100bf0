"""``ghostnets ghostify``: a checkpoint that loads again, its report, and what other commands make of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_images, randomized
from torch import nn

from ghostnets import engine
from ghostnets.checkpoints import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from ghostnets.cli import compression
from ghostnets.cli.main import main
from ghostnets.compress import HealReport
from ghostnets.compress.healing import Healing
from ghostnets.errors import CheckpointError
from ghostnets.measure import count
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a plain ResNet-20 with random weights, and 32 images."""
    folder = tmp_path_factory.mktemp("ghostify")
    torch.manual_seed(0)
    make_images(folder / "images", classes={"a": 16, "b": 16})
    model = randomized(create_model("resnet20", num_classes=3))
    names = ("a", "b", "c")
    preprocessing = Preprocessing.standard(32, 3)
    checkpoint = Checkpoint("resnet20", {"num_classes": 3}, model.state_dict(), names, preprocessing, temperature=2.0)
    save_checkpoint(folder / "net.safetensors", checkpoint)
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    out = folder / "small.safetensors"
    assert (
        run("ghostify", folder / "net.safetensors", folder / "images", "--out", out, "--budget", 0.7, "--heal-steps", 6)
        == 0
    )
    return out


def test_checkpoint_is_read_and_run_by_other_commands(folder: Path, small: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = read_checkpoint(small)
    assert checkpoint.architecture == "resnet20"
    assert checkpoint.temperature is None
    model = checkpoint.build()
    macs = count(model, (3, 32, 32)).macs
    assert macs <= 0.7 * count(create_model("resnet20"), (3, 32, 32)).macs + 100
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_checkpoint("resnet20", small)(x), model(x))
    capsys.readouterr()
    assert run("info", small, "--json") == 0
    assert json.loads(capsys.readouterr().out)["macs"] == macs
    assert run("eval", small, folder / "images", "--json") == 0
    capsys.readouterr()
    image = next((folder / "images" / "a").iterdir())
    assert run("predict", small, image, "--json") == 0
    assert json.loads(capsys.readouterr().out)


def test_interrupted_healing_is_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def ghostify(name: str, steps: int = 60) -> int:
        arguments = ("--out", tmp_path / name, "--budget", 0.7, "--heal-steps", steps)
        return run("ghostify", folder / "net.safetensors", folder / "images", *arguments)

    def interrupted(healing: Healing) -> None:
        if healing.step == 55:
            raise KeyboardInterrupt
        advance(healing)

    assert ghostify("whole.safetensors") == 0
    advance, state = Healing.advance, tmp_path / "again.heal.pt"
    with monkeypatch.context() as patch:
        patch.setattr(Healing, "advance", interrupted)
        assert ghostify("again.safetensors") == 130
    assert f"the same command resumes it from {state}" in " ".join(capsys.readouterr().err.split())
    assert state.exists()
    assert not (tmp_path / "again.safetensors").exists()
    assert run("ghostify", folder / "net.safetensors", folder / "images", "--out", tmp_path / "again.safetensors") == 0
    assert state.exists()  # only healing ends with it
    (tmp_path / "again.safetensors").unlink()
    assert ghostify("again.safetensors", steps=90) == 1
    assert "again.heal.pt is the state of another training (other steps)" in capsys.readouterr().err
    assert ghostify("again.safetensors") == 0
    assert f"found {state}, the state of an interrupted healing, to resume from" in " ".join(
        capsys.readouterr().err.split()
    )
    whole, again = (read_checkpoint(tmp_path / name).state_dict for name in ("whole.safetensors", "again.safetensors"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not state.exists()


def test_report_has_agreement_sensitivity_and_cost(small: Path):
    report = json.loads(small.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["images"] == {"fitted": 24, "compared": 8}
    assert [point["budget"] for point in report["curve"]] == [0.7]
    assert report["curve"][0]["macs"] <= 0.7
    assert (report["healed"] is not None) == report["healing"]["is_better"]
    for agreement in filter(None, (report["curve"][0]["agreement"], report["healed"])):
        assert 0 <= agreement["low"] <= agreement["share"] <= agreement["high"] <= 1
    assert report["macs"][1] < report["macs"][0]
    assert report["bytes"] == small.stat().st_size
    assert {"conv", "kind", "damage"} <= report["sensitivity"][0].keys()


def test_network_as_fitted_is_written_if_healing_lowers_its_agreement(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given = []

    def spoil(made: nn.Module, *_: object, **__: object) -> tuple[nn.Module, HealReport]:
        given.append(made)
        return made, HealReport((), (2, 4), (), 3, (0.1, 0.2), (1.0, 1 / 3), False)

    monkeypatch.setattr("ghostnets.cli.ghostify.heal", spoil)
    out = tmp_path / "small.safetensors"
    arguments = ("--out", out, "--budget", 0.7, "--heal-steps", 6)
    assert run("ghostify", folder / "net.safetensors", folder / "images", *arguments) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "on 3 images held out from 100.0% to 33.3%, so the network as fitted is written" in said
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["healed"] is None
    assert report["healing"] == {"held_out": 3, "agreement": [1, 1 / 3], "errors": [0.1, 0.2], "is_better": False}
    written = read_checkpoint(out).build().state_dict()
    assert all(torch.equal(value, written[name]) for name, value in given[0].state_dict().items())


def test_compressed_network_is_trained_and_resumed_with_its_changes(
    folder: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    line = ["train", folder / "images", "--weights", small, "--batch-size", 8, "--name", "tuned"]
    assert run(*line, "--epochs", 1) == 0
    first = read_checkpoint(tmp_path / "runs" / "tuned" / "best.safetensors")
    assert first.changes == read_checkpoint(small).changes != ()
    assert first.class_names == ("a", "b")
    assert run("train", "--resume", tmp_path / "runs" / "tuned", "--epochs", 2) == 0
    assert read_checkpoint(tmp_path / "runs" / "tuned" / "best.safetensors").changes == first.changes
    assert run(*line[:-1], "wider", "--width", 2) == 1
    assert capsys.readouterr().err


def test_compressed_network_is_compressed_again(folder: Path, small: Path, tmp_path: Path):
    out = tmp_path / "smaller.safetensors"
    assert run("ghostify", small, folder / "images", "--out", out, "--budget", 0.8, "--curve", "0.9", "--json") == 0
    first, second = read_checkpoint(small), read_checkpoint(out)
    assert second.changes[: len(first.changes)] == first.changes
    assert len(second.changes) > len(first.changes)
    macs = [count(checkpoint.build(), (3, 32, 32)).macs for checkpoint in (first, second)]
    assert macs[1] <= 0.8 * macs[0]


def test_budget_of_latency_is_used_and_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def time_layers(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, float]:
        return {
            layer.name: 1e-9 * layer.macs * (3 if "depthwise" in layer.kind else 1)
            for layer in count(network, shape).layers
        }

    monkeypatch.setattr(engine, "time_layers", time_layers)
    monkeypatch.setattr("ghostnets.cli.ghostify.TIMED", ("engine",))
    out = tmp_path / "fast.safetensors"
    arguments = ("--out", out, "--budget", 0.8, "--unit", "latency", "--time")
    assert run("ghostify", folder / "net.safetensors", folder / "images", *arguments) == 0
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    before, after = (
        sum(time_layers(read_checkpoint(path).build(), (3, 32, 32)).values())
        for path in (folder / "net.safetensors", out)
    )
    assert report["unit"] == "latency"
    assert {name: sorted(times) for name, times in report["times"].items()} == {"engine": ["after", "before"]}
    assert " ms before, " in capsys.readouterr().out
    assert report["curve"][0]["seconds"] == pytest.approx([before, after])
    assert 0.76 < after / before <= 0.8


def test_timm_network_is_stored_and_built_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = randomized(timm.create_model("test_resnet", num_classes=4))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    out = tmp_path / "small.safetensors"
    line = ["ghostify", "timm:test_resnet", folder / "images", "--out", out, "--most", 8]
    assert run(*line, "--weights", tmp_path / "weights.pth") == 0
    checkpoint = read_checkpoint(out)
    assert (checkpoint.architecture, len(checkpoint.class_names)) == ("timm:test_resnet", 4)
    assert checkpoint.preprocessing.image_size == 160
    assert checkpoint.build()(torch.randn(1, 3, 64, 64)).shape == (1, 4)
    capsys.readouterr()
    assert run("predict", out, next((folder / "images" / "a").iterdir()), "--json") == 0
    assert json.loads(capsys.readouterr().out)
    line_of_export = ["export", out, "--format", "onnx", "--images", folder / "images", "--out", tmp_path / "x.onnx"]
    assert run(*line_of_export, "--features") == 1
    assert "a network of another library, whose features are unknown" in capsys.readouterr().err
    assert run(*line_of_export) == 0
    assert run("train", folder / "images", "--weights", out) == 1
    assert "is timm:test_resnet, a network of another library, which train cannot" in capsys.readouterr().err
    torch.save({"fc.bias": torch.zeros(4)}, tmp_path / "other.pth")
    assert run(*line, "--weights", tmp_path / "other.pth", "--overwrite") == 1
    assert "does not fit timm:test_resnet: Error(s) in loading" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        [{"kind": "merge", "conv": "nothing", "chain": [], "consumer": "", "channels": 2}],
        [{"kind": "ghost"}],
        [3],
        "text",
    ],
    ids=str,
)
def test_damaged_changes_are_rejected(folder: Path, changes: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = read_checkpoint(folder / "net.safetensors")
    object.__setattr__(checkpoint, "changes", changes)
    save_checkpoint(tmp_path / "x.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match="has an invalid description"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_published_networks_of_torchvision_get_the_images_that_they_were_trained_on():
    """torchvision turns ImageNet's usual normalisation into values from -1 to 1 within these networks."""
    models = pytest.importorskip("torchvision.models")
    network = models.get_model("googlenet", weights=None, init_weights=False, transform_input=True).eval()
    pixels = torch.rand(2, 3, 64, 64)
    preprocessing = compression._library_preprocessing(network, 1000)
    assert (preprocessing.image_size, preprocessing.resize_to) == (224, 256)
    usual = Preprocessing.standard(224, 3)
    with torch.no_grad():
        expected = network(usual.normalize(pixels))
        network.transform_input = False
        got = network(preprocessing.normalize(pixels))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert compression._library_preprocessing(network, 5) == usual  # trained by the user


def test_place_that_cannot_be_written_is_named_before_the_network_is_measured(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "file").write_text("no folder")
    for command in ("ghostify", "quantize"):
        out = folder / "file" / "small.safetensors"
        assert run(command, folder / "net.safetensors", folder / "images", "--out", out) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "could not write" in said
        assert "reading images" not in said


def test_budget_of_the_curve_that_cannot_be_met_is_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "small.safetensors"
    options = ("--out", out, "--budget", 0.8, "--curve", 0.01, "--most", 12)
    assert run("ghostify", folder / "net.safetensors", folder / "images", *options) == 0
    assert "left out of the curve: the budget is 0.01" in " ".join(capsys.readouterr().err.split())
    assert [point["budget"] for point in json.loads(out.with_suffix(".json").read_text())["curve"]] == [0.8]
    assert out.exists()


def test_too_few_images_to_heal_on_are_rejected_before_the_network_is_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ("--out", tmp_path / "small.safetensors", "--heal-steps", 2, "--most", 9)
    assert run("ghostify", folder / "net.safetensors", folder / "images", *options) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "has 9 readable images, too few to heal on" in said
    assert "measuring" not in said


def test_networks_of_torchvision_that_are_no_classifiers_are_rejected_without_a_download(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    torch.save({"fc.bias": torch.zeros(3)}, folder / "weights.pth")
    options = ("--weights", folder / "weights.pth", "--out", folder / "other.safetensors")
    assert run("ghostify", "torchvision:fasterrcnn_resnet50_fpn", folder / "images", *options) == 1
    assert "torchvision has no classifier 'fasterrcnn_resnet50_fpn'" in " ".join(capsys.readouterr().err.split())


def test_layers_in_float32_of_the_original_are_dropped(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    quantized = replace(
        read_checkpoint(folder / "net.safetensors"), float_layers=("blocks.1.0.convs.0.primary_conv.0",)
    )
    save_checkpoint(tmp_path / "quantized.safetensors", quantized)
    options = ("--out", tmp_path / "small.safetensors", "--budget", 0.8, "--most", 12)
    assert run("ghostify", tmp_path / "quantized.safetensors", folder / "images", *options) == 0
    assert "int8 leaves in float32 are dropped" in " ".join(capsys.readouterr().err.split())
    assert read_checkpoint(tmp_path / "small.safetensors").float_layers == ()
