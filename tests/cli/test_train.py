"""Training from the command line: recipes, repeating, the live report, shards, comparing runs."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY, Page, make_images

from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.main import main
from ghostnets.train import RECIPES, RunFolder, derived

FAST = ["--model", "ghost_resnet20", "--epochs", "2", "--batch-size", "8", "--drop-rate", "0"]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "small", classes={"dark": 20, "light": 24}, size=(8, 8))


def recipe_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())["recipe"]


def test_options_override_a_named_recipe(small: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--recipe", "cifar10", "--milestones", "0.4", "0.9", "--optimizer", "lamb", "--no-channels-last"]
    assert run("train", small, "--name", "a", *FAST, *options, "--ema-decay", "0.9") == 0
    expected = RECIPES["cifar10"].changed(
        model="ghost_resnet20",
        epochs=2,
        batch_size=8,
        milestones=(0.4, 0.9),
        optimizer="lamb",
        channels_last=False,
        ema_decay=0.9,
        image_size=8,
        in_chans=3,
    )
    assert RunFolder("runs/a").read_config().recipe == expected
    assert "--recipe cifar10" in Path("runs/a/report.html").read_text()


@pytest.mark.parametrize(
    "network", [["g_ghost_regnetx_002"], ["ghost_vgg16"], ["ghostnetv2_050", "--width", "0.1"]], ids=lambda n: n[0]
)
def test_train_and_report_each_family(network: list[str], small: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "1", "--batch-size", "8", "--drop-rate", "0"]
    assert run("train", small, "--name", "a", "--model", *network, *options) == 0
    assert f"{network[0]} on small" in Path("runs/a/report.html").read_text()


def test_branched_network_from_training_to_explanation(small: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--width", "0.1", "--epochs", "1", "--batch-size", "8", "--drop-rate", "0"]
    assert run("train", small, "--name", "a", "--model", "ghostnetv3_050", *options) == 0
    capsys.readouterr()
    assert run("info", "runs/a/best.safetensors", "--json") == 0
    assert json.loads(capsys.readouterr().out)["plain_macs"] > 0
    assert run("eval", "runs/a/best.safetensors", small) == 0
    assert run("explain", "runs/a/best.safetensors", "--images", small) == 0
    assert "Learned cheap kernels" in Path("runs/a/explain/explain.html").read_text()


def test_repeat_gives_the_same_files(tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", "--repeat", tiny_run, "--name", "again", "--json") == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "runs/again"
    for name in ("best.safetensors", "config.json"):
        assert (tmp_path / "runs" / "again" / name).read_bytes() == (tiny_run / name).read_bytes()
    assert run("train", "--repeat", tiny_run, "--lr", "3") == 1
    assert "omit all options but --name, --runs-dir and --data" in capsys.readouterr().err


def test_live_report_is_replaced_by_the_final_one(small: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(derived, "REPORT_SECONDS", -1)
    monkeypatch.setattr(derived, "REPORT_COST", 0)
    pages = []
    real = derived.write_live_report
    monkeypatch.setattr(
        derived,
        "write_live_report",
        lambda folder: (real(folder), pages.append(folder.report.read_text(encoding="utf-8"))),
    )
    assert run("train", small, "--name", "a", *FAST) == 0
    assert len(pages) == 2
    page = Page(pages[0])
    assert "1 of 2 epochs completed" in page.text
    assert page.requests() == []
    assert [a["content"] for tag, a in page.found if tag == "meta" and a.get("http-equiv") == "refresh"] == ["20"]
    final = Page(Path("runs/a/report.html").read_text(encoding="utf-8"))
    assert not [a for tag, a in final.found if tag == "meta" and a.get("http-equiv")]


def test_fine_tuning_on_other_classes(tiny_run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "other", classes={"a": 12, "b": 12, "c": 12})
    weights = ["--weights", tiny_run / "best.safetensors", "--epochs", "2", "--batch-size", "8"]
    assert run("train", "other", "--name", "head", "--recipe", "finetune-head", *weights) == 0
    assert run("train", "other", "--name", "all", "--recipe", "finetune", *weights) == 0
    for name in ("head", "all"):
        assert read_checkpoint(f"runs/{name}/best.safetensors").class_names == ("a", "b", "c")
        assert recipe_of(tmp_path / "runs" / name)["weights"] == str(tiny_run / "best.safetensors")


def test_train_and_eval_on_shards(small: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("shard", small, "shards", "--images-per-shard", "9", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parts"]["train"]["images"] == 35
    assert run("train", "shards", "--name", "a", *FAST) == 0
    capsys.readouterr()
    assert run("eval", "runs/a/best.safetensors", "shards", "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["part"], evaluation["images"]) == ("val", 9)
    assert evaluation["top1"] == json.loads(Path("runs/a/result.json").read_text())["evaluation"]["top1"]
    assert run("shard", small, "shards") == 1
    assert "already exists" in capsys.readouterr().err
    make_images(tmp_path / "parts" / "train", classes={"cat": 2, "dog": 2})
    make_images(tmp_path / "parts" / "val", classes={"cat": 1, "dog": 1})
    assert run("shard", "parts", "other", "--val-share", "0.4") == 1
    assert "val_share 0.4 has no effect: parts has 2 validation images of its own" in capsys.readouterr().err


def test_compare_runs(tiny_run: Path, small: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", small, "--name", "other", *FAST) == 0
    capsys.readouterr()
    assert run("compare", tiny_run, "runs/other", "--json") == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["differing"]["model"] == ["ghostnet_050", "ghost_resnet20"]
    assert "label_smoothing" not in comparison["differing"]
    assert [r["results"]["epochs"] for r in comparison["runs"]] == ["12 of 12", "2 of 2"]
    page = Page(Path("compare.html").read_text(encoding="utf-8"))
    assert page.requests() == []
    assert all(f"<td>{name}</td>" in page.text for name in ("tiny", "other", "width", "ghost_resnet20"))
    assert "label_smoothing" not in page.text
    assert run("compare", tiny_run, "--out", "one.html") == 0
    figure = Path("runs/photos-find-lr.png")
    figure.write_bytes(b"")  # of train --find-lr, among those of runs/*
    assert run("compare", tiny_run, figure, "--out", "one.html") == 0
    figure.unlink()
    assert "All settings are the same." in capsys.readouterr().out
    assert run("compare", tmp_path) == 1
    assert "holds no training run" in capsys.readouterr().err
    Path("runs/empty").mkdir()
    bad = {
        "metrics.csv": ("epoch,lr\n", "has no rows"),
        "result.json": ("{", "cannot be read"),
        "config.json": ("[]", "cannot be used"),
        "part": ('{"evaluation": {"top1": 0.5, "images": 2}}', "cannot be read ('part')"),
        "folder": (None, "folder/metrics.csv cannot be read"),
    }
    for name, (content, _) in bad.items():
        shutil.copytree("runs/other", f"runs/bad-{name}")
        file = Path("runs", f"bad-{name}", {"part": "result.json", "folder": "metrics.csv"}.get(name, name))
        if content is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_text(content)
    assert run("compare", *sorted(Path("runs").iterdir()), "--json") == 1
    output, errors = capsys.readouterr()
    comparison = json.loads(output)
    assert [r["name"] for r in comparison["runs"]] == ["other"]
    assert sorted(comparison["problems"]) == sorted([*(f"runs/bad-{name}" for name in bad), "runs/empty"])
    assert all(sentence in errors for _, sentence in bad.values())
    with pytest.raises(SystemExit) as caught:
        run("compare")
    assert caught.value.code == 2
    assert "ghostnets compare runs/plain runs/ghost" in capsys.readouterr().err


def test_compared_runs_are_told_apart_and_so_are_their_images(tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    """Runs of the same name had one name, images that changed in their folder, and a resumed length, were not told."""
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        shutil.copytree(tiny_run, Path(place, "run"))
    assert run("compare", "a/run/best.safetensors", "b/run", "a/run", "--json") == 0
    output, errors = capsys.readouterr()
    assert [r["name"] for r in json.loads(output)["runs"]] == ["a/run", "b/run"]
    assert (json.loads(output)["differing"], errors) == ({}, "")
    file = Path("b/run/config.json")
    config = json.loads(file.read_text())
    config |= {"identity": "0123456789abcdef", "earlier_epochs": [6, 8], "skip_corrupt": True}
    file.write_text(json.dumps(config))
    assert run("compare", "a/run", "b/run", "--json") == 0
    output, errors = capsys.readouterr()
    assert errors == "note: a/run and b/run have different images, so their figures are of different images too\n"
    differing = json.loads(output)["differing"]
    assert {name: values[1] for name, values in differing.items()} == {
        "digest of the data": "0123456789ab",
        "skip_corrupt": "True",
        "earlier_epochs": "6, 8",
    }


def test_missing_gpu_is_rejected(small: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("train", small, "--device", "cuda", *TINY) == 1
    assert "torch finds no accelerator here" in capsys.readouterr().err
    assert not Path("runs").exists()
