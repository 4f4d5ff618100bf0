"""The command line: typical use and invalid use."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, make_images, read_csv
from forked import run_command, start_process
from PIL import Image

from ghostnets import __version__
from ghostnets.cli.main import COMMANDS, main


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Error message of a command that must fail with exit code 1 and one line on stderr."""
    capsys.readouterr()
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = captured.err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_help_version_and_unknown_command(capsys):
    assert run("--help") == 0
    assert "ghostnets train photos/" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"ghostnets {__version__}\n"
    assert run() == 2
    assert "did you mean train?" in fails(capsys, "trian")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys):
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    assert f"usage: ghostnets {command}" in capsys.readouterr().out


def test_invalid_option_exits_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        run("train", "--epoch", "3")
    assert caught.value.code == 2


def test_train_eval_predict(photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", "photos", "--json", *TINY) == 0
    result = json.loads(capsys.readouterr().out)
    folder = tmp_path / "runs" / "photos-ghostnet_050"
    assert result["checkpoint"] == "runs/photos-ghostnet_050/best.safetensors"
    assert (folder / "report.html").exists()

    assert run("eval", folder / "best.safetensors", photos, "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["part"] == "val"  # what training kept back, not what it learned from
    assert evaluation["images"] == 8
    assert evaluation["top1"] == result["evaluation"]["top1"]
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")

    assert run("predict", folder / "best.safetensors", photos / "dark", "--out", tmp_path / "a.csv") == 0
    capsys.readouterr()
    assert run("predict", folder / "best.safetensors", photos / "dark", "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    rows = read_csv(tmp_path / "a.csv")
    assert [row["path"] for row in rows] == [answer["path"] for answer in answers]
    assert len(rows) == 20
    assert float(rows[0]["probability_1"]) == pytest.approx(answers[0]["answers"][0]["probability"], abs=1e-6)
    assert run("predict", folder / "best.safetensors", photos / "dark" / "000.png") == 0
    assert "000.png" in capsys.readouterr().out


def test_train_selects_recipe_and_applies_options(photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("train", "--data", photos, "--name", "a", *TINY, "--no-flip", "--seed", "7") == 0
    recipe = json.loads((tmp_path / "runs" / "a" / "config.json").read_text())["recipe"]
    assert (recipe["model"], recipe["flip"], recipe["seed"], recipe["label_smoothing"]) == (
        "ghostnet_050",
        "none",
        7,
        0.0,
    )
    assert "--recipe small-images" in (tmp_path / "runs" / "a" / "report.html").read_text()
    assert run("train", photos, "--name", "b", "--recipe", "photos", *TINY, "--model", "ghostnet_050") == 0
    recipe = json.loads((tmp_path / "runs" / "b" / "config.json").read_text())["recipe"]
    assert recipe["label_smoothing"] == 0.1
    capsys.readouterr()
    assert "given twice" in fails(capsys, "train", photos, "--data", tmp_path)


def test_report_command_repeats_run(photos: Path, tmp_path: Path, monkeypatch, capsys):
    import html
    import re
    import shlex

    monkeypatch.chdir(tmp_path)
    assert run("train", photos, "--name", "a", *TINY, "--no-flip", "--seed", "3") == 0
    report = (tmp_path / "runs" / "a" / "report.html").read_text()
    command = shlex.split(html.unescape(re.search(r"<pre[^>]*><code>(.*?)</code>", report, re.DOTALL)[1]))
    assert run(*command[1:], "--name", "b") == 0
    configurations = [json.loads((tmp_path / "runs" / name / "config.json").read_text()) for name in ("a", "b")]
    assert configurations[0] == configurations[1]
    assert (tmp_path / "runs" / "a" / "best.safetensors").read_bytes() == (
        tmp_path / "runs" / "b" / "best.safetensors"
    ).read_bytes()


def test_eval_of_folder_layouts(tiny_run: Path, tmp_path: Path, capsys):
    checkpoint = tiny_run / "best.safetensors"
    picture = ("--picture", tmp_path / "c.svg", "--json")
    make_images(tmp_path / "flat", classes={"light": 4, "dark": 4})
    assert run("eval", checkpoint, tmp_path / "flat", *picture) == 0
    assert json.loads(capsys.readouterr().out)["part"] == "all"
    make_images(tmp_path / "parts" / "train", classes={"dark": 4, "light": 4})
    make_images(tmp_path / "parts" / "test", classes={"dark": 1, "light": 2})
    assert run("eval", checkpoint, tmp_path / "parts", *picture) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["part"], evaluation["images"]) == ("test", 3)
    assert run("eval", checkpoint, tmp_path / "parts", "--part", "all") == 0
    assert "11 images (all)" in capsys.readouterr().out
    make_images(tmp_path / "strange", classes={"dark": 3, "green": 3})
    assert "does not have (green); it has 2: dark, light" in fails(capsys, "eval", checkpoint, tmp_path / "strange")
    assert "it must end in .png or .svg or .pdf" in fails(
        capsys, "eval", checkpoint, tmp_path / "flat", "--picture", tmp_path / "c.doc"
    )


def test_eval_writes_a_row_per_image_and_names_mistakes(tiny_run: Path, tmp_path: Path, capsys):
    make_images(tmp_path / "flat", classes={"light": 2, "dark": 3})  # brightness and class the other way round
    command = ("eval", tiny_run / "best.safetensors", tmp_path / "flat", "--picture", tmp_path / "c.png")
    assert run(*command, "--out", tmp_path / "a.csv", "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)
    rows = read_csv(tmp_path / "a.csv")
    assert sorted((row["path"], row["truth"]) for row in rows) == [
        (str(tmp_path / "flat" / name / f"{i:03}.png"), name)
        for name, count in (("dark", 3), ("light", 2))
        for i in range(count)
    ]
    wrong = {row["path"]: row for row in rows if row["truth"] != row["prediction"]}
    assert evaluation["mistakes"]
    for mistake in evaluation["mistakes"]:
        row = wrong.pop(mistake["path"])
        assert (row["prediction"], row["training_image"]) == (mistake["prediction"], str(mistake["training_image"]))
        assert float(row["loss"]) == pytest.approx(mistake["loss"], abs=1e-6)
        assert float(row["probability"]) == pytest.approx(mistake["probability"], abs=1e-6)
    assert not wrong
    assert run(*command, "--out", tmp_path / "a.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [row["path"] for row in rows]
    out = capsys.readouterr().out
    assert f"{evaluation['mistakes'][0]['path']}: " in out
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run(*command, "--out", tmp_path / "a.parquet") == 0
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == lines
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    assert run(*command, "--out", tmp_path / "file" / "a.csv") == 1  # cannot be written, but the result is not lost
    assert "5 images (all)   top-1" in capsys.readouterr().out
    assert "--out is a.xls; it must end in .csv or .jsonl or .parquet" in fails(capsys, *command, "--out", "a.xls")


def test_eval_recognises_training_images_under_another_path(tiny_run: Path, tmp_path: Path, capsys):
    photos = tiny_run.parents[1] / "photos"
    shutil.copytree(photos, tmp_path / "copy")
    command = ("eval", tiny_run / "best.safetensors", tmp_path / "copy", "--picture", tmp_path / "c.png")
    assert run(*command, "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["part"], evaluation["images"], evaluation["training_images"]["images"]) == ("val", 8, 0)
    (tmp_path / "copy" / "light" / "000.png").rename(tmp_path / "copy" / "light" / "other.png")  # other data by name
    assert run(*command, "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["part"], evaluation["images"], evaluation["training_images"]["images"]) == ("all", 40, 32)
    result = json.loads((tiny_run / "result.json").read_text())
    assert evaluation["training_images"]["top1_of_others"] == result["evaluation"]["top1"]
    assert run(*command) == 0
    assert "32 of 40 images are training images of this network" in capsys.readouterr().err
    assert run("shard", tmp_path / "copy", tmp_path / "shards") == 0
    capsys.readouterr()
    assert run("eval", command[1], tmp_path / "shards", "--part", "all", *command[3:], "--json") == 0
    assert json.loads(capsys.readouterr().out)["training_images"]["images"] == 32
    shutil.copy(command[1], tmp_path / "alone.safetensors")
    assert run("eval", tmp_path / "alone.safetensors", *command[2:]) == 0
    assert "whether these are training images is unknown" in capsys.readouterr().err


def test_eval_matches_classes_by_name(tiny_run: Path, tmp_path: Path, capsys):
    """A folder whose classes come in another order, or lack some, still counts by name."""
    from dataclasses import replace

    from ghostnets.checkpoints import read_checkpoint, save_checkpoint

    checkpoint = read_checkpoint(tiny_run / "best.safetensors")
    weight, bias = (checkpoint.state_dict[f"classifier.{leaf}"].flip(0) for leaf in ("weight", "bias"))
    turned = {**checkpoint.state_dict, "classifier.weight": weight, "classifier.bias": bias}
    save_checkpoint(tmp_path / "t.safetensors", replace(checkpoint, state_dict=turned, class_names=("light", "dark")))
    make_images(tmp_path / "flat", classes={"dark": 5, "light": 7})
    results = []
    for file in (tiny_run / "best.safetensors", tmp_path / "t.safetensors"):
        assert run("eval", file, tmp_path / "flat", "--json", "--picture", tmp_path / "c.png") == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["top1"] == results[1]["top1"]
    assert results[0]["confusion"] == [row[::-1] for row in results[1]["confusion"][::-1]]


def test_info(tiny_run: Path, capsys):
    assert run("info", "ghostnet_100") == 0
    out = capsys.readouterr().out
    for part in ("141.151", "230.066", "1.782 times less", "equation 4 of the paper gives 1.782", "160 x 7 x 7"):
        assert part in out
    assert run("info", "ghostnet_100", "--json", "--image-size", "32", "--num-classes", "10") == 0
    assert json.loads(capsys.readouterr().out)["input_shape"] == [3, 32, 32]
    assert run("info", tiny_run / "best.safetensors") == 0
    assert "3 x 16 x 16" in capsys.readouterr().out


def test_info_of_detectors_and_segmentation_networks(tiny_segmenter: Path, capsys):
    for name, macs in (("ghostdet_100", "762.2"), ("ghostseg_050", "370.3")):  # as docs/detection.md, segmentation.md
        assert run("info", name) == 0
        assert macs in capsys.readouterr().out
    assert run("info", tiny_segmenter, "--json") == 0
    assert json.loads(capsys.readouterr().out)["input_shape"] == [3, 48, 48]
    assert run("info", "ghostdet_100", "--width", "2") == 1
    assert "has no width" in capsys.readouterr().err


def test_commands_for_classifiers_reject_other_networks(
    tiny_segmenter: Path, tiny_detector: Path, tmp_path: Path, capsys
):
    for network, subject in ((tiny_detector, "a detector"), (tiny_segmenter, "a segmentation network")):
        for words in (
            ["explain", network, "--images", tmp_path, "--out", tmp_path / "e"],
            ["ghostify", network, tmp_path, "--out", tmp_path / "x.safetensors"],
        ):
            assert run(*words) == 1
            assert f"is {subject} (ghost" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["g_ghost_regnetx_002", "ghost_resnet20", "ghost_vgg16", "ghostnet_100_d_li14", "ghostnetv2_050", "resnet20"],
)
def test_info_of_every_family(name: str, capsys):
    assert run("info", name) == 0
    out = capsys.readouterr().out
    assert f"{name}()" in out
    assert "Branches" not in out


def test_info_merges_branches(capsys):
    assert run("info", "ghostnetv3_050") == 0
    out = capsys.readouterr().out
    assert "2.853" in out
    assert "In training form it has 3.395 M parameters and 117.528 M MACs" in out


def test_info_of_the_engine(tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("info", "--engine", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instruction_sets"]
    assert found["threads"] >= 1
    assert found["choice"] is None
    assert run("info", tiny_run / "best.safetensors", "--engine", "--json") == 0
    choice = json.loads(capsys.readouterr().out)["choice"]
    assert choice["precision"] in ("f32", "bf16")
    assert choice["image_size"] == 16
    assert run("info", tiny_run / "best.safetensors", "--engine") == 0
    assert "the fastest on this machine" in " ".join(capsys.readouterr().out.split())
    assert "no network is named" in fails(capsys, "info")


def test_info_rejects_invalid_arguments(tiny_run: Path, capsys):
    assert "did you mean ghostnet_100" in fails(capsys, "info", "ghostnet_1000")
    assert "is a checkpoint, which defines its network" in fails(
        capsys, "info", tiny_run / "best.safetensors", "--width", "2"
    )
    assert "no argument width" in fails(capsys, "info", "ghostnet_100_d_li14", "--width", "2")
    assert "there is no checkpoint" in fails(capsys, "info", "runs/nothing/best.safetensors")
    assert "--image-size is 0" in fails(capsys, "info", "ghostnet_100", "--image-size", "0")


def test_train_rejects_invalid_arguments(photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "there is no folder nowhere" in fails(capsys, "train", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "contains no images" in fails(capsys, "train", "empty")
    assert "there is no model named 'ghostnet_1'" in fails(capsys, "train", photos, "--model", "ghostnet_1")
    assert "no recipe named 'photoz'; did you mean photos" in fails(capsys, "train", photos, "--recipe", "photoz")
    with pytest.raises(SystemExit) as caught:
        run("train", photos, "--epochs", "0")
    assert caught.value.code == 2
    assert "epochs is 0" in capsys.readouterr().err
    assert "a name without folders" in fails(capsys, "train", photos, "--name", "../x")
    assert "omit all options but --data and --epochs" in fails(capsys, "train", "--resume", "runs/x", "--lr", "3")
    assert "holds no training run" in fails(capsys, "train", "--resume", "runs/x")
    assert "--full and --root belong to fashion-mnist" in fails(capsys, "train", photos, "--full")
    assert "28 x 28 grayscale images" in fails(capsys, "train", "--image-size", "32", "--epochs", "1")
    for path in sorted(photos.rglob("*.png"))[:3]:
        path.write_bytes(path.read_bytes()[:70])
    assert "3 of 40 images cannot be read" in fails(capsys, "train", photos, "--name", "d", *TINY)
    assert not (tmp_path / "runs").exists()  # so the same name can be used again
    assert run("train", photos, "--name", "d", *TINY, "--skip-corrupt") == 0
    assert "unreadable images left out: 3" in capsys.readouterr().out
    assert "Unreadable images left out: 3." in (tmp_path / "runs" / "d" / "report.html").read_text()
    assert "already exists" in fails(capsys, "train", photos, "--name", "d", *TINY, "--skip-corrupt")


def test_eval_rejects_invalid_checkpoints(tiny_run: Path, photos: Path, tmp_path: Path, capsys):
    shutil.copy(tiny_run / "last.pt", tmp_path / "last.pt")
    (tmp_path / "x.safetensors").write_text("hello")
    assert "there is no checkpoint" in fails(capsys, "eval", tmp_path / "no.safetensors", photos)
    assert "not a safetensors file" in fails(capsys, "eval", tmp_path / "x.safetensors", photos)
    assert "not a safetensors file" in fails(capsys, "eval", tmp_path / "last.pt", photos)


def test_missing_extra_fails_early(photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    sentence = fails(capsys, "train", photos, *TINY)
    assert "needs jinja2, which is not installed; run: pip install " in sentence
    assert "[train]" in sentence
    assert not (tmp_path / "runs").exists()


def test_predict_and_info_need_no_extra(tiny_run: Path, photos: Path):
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'jinja2', 'tensorboard'): sys.modules[name] = None\n"
        "from ghostnets.cli.main import main\n"
        "sys.exit(main(['predict', *sys.argv[1:]]) or main(['info', 'ghostnet_050']))"
    )
    command = [sys.executable, "-c", code, str(tiny_run / "best.safetensors"), str(photos / "dark")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "ghostnet_050" in process.stdout


def run_with_small_files(*arguments: Any) -> None:
    """Run a command in this process; no file may grow above 16 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))
    run_command(*arguments)


def test_full_disk_reports_one_sentence(photos: Path, tmp_path: Path):
    """The kernel refuses the write itself, as on a full disk."""
    command = ["train", str(photos), "--name", "a", *TINY]
    process = start_process(run_with_small_files, command, tmp_path, tmp_path / "errors.txt")
    process.join()
    assert process.exitcode == 1
    errors = (tmp_path / "errors.txt").read_text()
    assert "Traceback" not in errors
    assert "error: could not write" in errors.splitlines()[-1]
    assert not list((tmp_path / "runs" / "a").glob("*.partial"))
    assert not (tmp_path / "runs" / "a" / "best.safetensors").exists()


def test_closed_pipe_is_not_an_error(tmp_path: Path):
    command = f"{sys.executable} -m ghostnets list --json | head -c 5"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert process.stdout == '{\n  "'
    assert "Traceback" not in process.stderr


def test_grayscale_images_train_one_channel_network(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "grey", classes={"a": 10, "b": 10}, grey=True)
    assert run("train", "grey", "--name", "g", *TINY) == 0
    assert run("info", "runs/g/best.safetensors") == 0
    assert "1 x 16 x 16" in capsys.readouterr().out
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.jpg")
    assert run("predict", "runs/g/best.safetensors", "red.jpg") == 0


def test_every_family_trains(photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = ["--epochs", "1", "--batch-size", "8"]
    assert main(["train", str(photos), "--name", "a", "--model", "ghost_resnet20", *recipe]) == 0
    assert main(["info", "runs/a/best.safetensors"]) == 0
    assert "ghost_resnet20(num_classes=2" in capsys.readouterr().out
    assert main(["train", str(photos), "--model", "ghost_resnet20", "--width", "0.5"]) == 1
    assert "ghost_resnet20 has no argument width" in capsys.readouterr().err


@pytest.mark.parametrize(("set_before", "expected"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_train_limits_spinning_of_waiting_threads_before_torch_is_loaded(set_before: dict[str, str], expected: str):
    code = (
        "import os, sys, types\n"
        "from ghostnets.cli import main\n"
        "show = lambda _: print(os.environ['GOMP_SPINCOUNT']) or 0\n"
        "sys.modules['ghostnets.cli.train'] = types.SimpleNamespace(run=show)\n"
        "main.run_command('train')\n"
        "assert 'torch' not in sys.modules\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    found = subprocess.run([sys.executable, "-c", code], env={**kept, **set_before}, capture_output=True, text=True)
    assert (found.stdout.strip(), found.returncode) == (expected, 0), found.stderr
