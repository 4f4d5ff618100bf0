"""Options of all commands: help and rejections without torch; tables of names; renamed options."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from ghostnets.bench import BACKENDS
from ghostnets.bench import PRECISIONS as BENCH_PRECISIONS
from ghostnets.cli.main import COMMANDS, MODULES, main
from ghostnets.cli.options import bench, profile
from ghostnets.cli.options.checks import TABLES
from ghostnets.cli.options.eval import FIGURE_SUFFIXES
from ghostnets.cli.options.train import TrainCommand, _recipe_help
from ghostnets.cli.profile import DTYPES
from ghostnets.explain import figures
from ghostnets.models.names import MODEL_NAMES
from ghostnets.models.registry import MODELS
from ghostnets.predict.writers import WRITERS
from ghostnets.train import RECIPES, Recipe

HEAVY = ("torch", "torchvision", "matplotlib", "numpy")

# A line that must be rejected without torch, and the reason.
REJECTIONS = [
    ("train nowhere/", "there is no folder nowhere/"),
    ("train --model ghostnet_10", "did you mean ghostnet_130 or ghostnet_100"),
    ("train --optimizer adam", "optimizer is adam, expected one of sgd, adamw"),
    ("train --recipe transfr", "did you mean transfer"),
    ("train --weights no.safetensors", "there is no checkpoint no.safetensors"),
    ("train --resume nowhere", "nowhere holds no training run"),
    ("train --name a/b", "it must be a name without folders"),
    ("shard nowhere out", "there is no folder nowhere"),
    ("shard {empty}", "pass either OUT or --out OUT"),
    ("compare", "ghostnets compare runs/plain runs/ghost All options: ghostnets compare --help"),
    ("predict", "ghostnets predict net.engine photo.jpg"),
    ("export", "For example: ghostnets export runs/"),
    ("import", "For example: ghostnets import"),
    ("explain", "For example: ghostnets explain"),
    ("bench", "For example: ghostnets bench"),
    ("predict net.engine . --sort-into sorted", "--sort-into sorted is inside ."),
    ("predict net.engine x.jpg --link", "add --sort-into FOLDER"),
    ("predict net.engine x.jpg --out x.jsonl --bom", "--bom is for a .csv file"),
    ("predict net.engine x.jpg --out x.json --bom", "--bom is for a .csv file"),
    ("eval no.safetensors .", "there is no checkpoint no.safetensors"),
    ("eval {empty} .", "is a folder without best.safetensors"),
    ("eval {onnx} . --calibrate", "a temperature is saved in a checkpoint; calibrate best.safetensors"),
    ("eval {onnx} . --device gpu", "the device is 'gpu'; it must be auto, cpu, cuda, mps or xpu"),
    ("info {onnx}", "is an exported file"),
    ("predict net.engine x.jpg --threshold 2", "--threshold is 2.0; it must be a probability above 0 and at most 1"),
    ("predict net.engine x.jpg --engine ray --device cuda", "--engine ray runs networks on CPUs"),
    ("eval {onnx} . --out x.txt", "it must end in .csv or .jsonl or .parquet"),
    ("predict net.engine", "no image is given"),
    ("predict net.engine x.jpg --top 0", "--top is 0; it must be at least 1"),
    ("predict net.engine x.jpg --out x.doc", "it must end in .csv or .jsonl or .parquet"),
    ("export {onnx} --format onx", "did you mean onnx"),
    ("export no.safetensors --format engine", "there is no checkpoint"),
    ("ghostify ghostnet_100 . --out x.safetensors", "ghostnet_100 is a network without weights"),
    ("ghostify timm:resnet18 . --out x.safetensors", "timm:resnet18 needs --weights FILE"),
    ("ghostify timm:resnet18 . --weights no.pth --out x.safetensors", "there is no file no.pth"),
    ("quantize timm:resnet18 . --out x.safetensors", "timm:resnet18 needs --weights FILE"),
    ("quantize ghostnet_100 . --out x.safetensors", "ghostnet_100 is a network without weights"),
    ("ghostify timm:resnet18 . --out x.safetensors --budget 1.5", "a budget is 1.5; it must be between 0 and 1"),
    ("import no.pth --model ghostnet_100 --to x.safetensors", "there is no checkpoint no.pth"),
    ("import no.pth --model ghostnet_100 --to x.pth", "it must end in .safetensors"),
    ("serve {empty}", "is a folder without best.safetensors"),
    ("explain ghostnet_10 --images .", "did you mean ghostnet_130 or ghostnet_100"),
    ("explain ghostnet_100 --images nowhere", "which is not a folder"),
    ("bench ghostnet_100 --backends egine", "did you mean engine"),
    ("bench {onnx}", "are benchmarked by name, with random weights"),
    ("bench ghostnet_100 --batch x", "pass comma-separated integers"),
    ("bench ghostnet_100 --runs 0", "--runs is 0; it must be at least 1"),
    ("bench ghostnet_100 --image-size -8", "--image-size is -8; it must be at least 1"),
    ("bench ghostnet_100 --out {onnx}/new", "net.onnx is not a folder; choose another place"),  # said after the timing
    ("explain ghostnet_100 --images . --out {onnx}", "net.onnx is not a folder; choose another place"),
    ("predict net.engine x.jpg --sort-into {onnx}", "net.onnx is not a folder; choose another place"),
    ("predict net.engine x.jpg --draw {onnx}", "net.onnx is not a folder; choose another place"),
    ("profile ghostnet_100 --precision f16", "did you mean"),
    ("info ghostnet_100 --image-size 0", "--image-size is 0"),
    ("info no.safetensors", "there is no checkpoint"),
]

SCRIPT = """
import contextlib, io, sys
from ghostnets.cli.main import COMMANDS, main
def loaded(): return [name for name in {heavy!r} if name in sys.modules]
for line in sys.stdin.read().splitlines():
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try: code = main(line.split())
        except SystemExit as error: code = error.code
    print(code, loaded(), line, "->", " ".join(output.getvalue().split()))
"""


def test_help_and_rejection_load_no_torch(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.onnx").touch()
    paths = {"empty": tmp_path / "empty", "onnx": tmp_path / "net.onnx"}
    rejected = [(line.format(**paths), reason) for line, reason in REJECTIONS]
    lines = [f"{command} --help" for command in COMMANDS] + [line for line, _ in rejected]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY)],
        input="\n".join(lines), capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    printed = process.stdout.splitlines()
    assert len(printed) == len(lines), process.stderr
    for line, result in zip(lines, printed, strict=True):
        code, rest = result.split(" ", 1)
        assert (code == "0") == line.endswith("--help"), result
        assert rest.startswith(f"[] {line}"), result
    for (_, reason), result in zip(rejected, printed[len(COMMANDS) :], strict=True):
        assert reason in result
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "net.onnx"}


def test_light_tables_equal_those_of_the_packages():
    assert frozenset(MODELS) == MODEL_NAMES
    assert {name: backend.libraries for name, backend in BACKENDS.items()} == bench.BACKEND_LIBRARIES
    assert bench.PRECISIONS == BENCH_PRECISIONS
    assert tuple(DTYPES) == profile.PRECISIONS
    assert figures.FIGURE_SUFFIXES == FIGURE_SUFFIXES
    assert set(WRITERS) == set(TABLES)


def test_help_has_no_line_breaks_of_the_source(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        TrainCommand.parse(["--help"])
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if "Folder with train/" in line)
    for line, following in pairwise(lines[first : first + 3]):
        word = following.strip("│ ").split()[0]
        assert len(line.rstrip("│ ")) + 1 + len(word) > 100 - 2, line  # the next word does not fit


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_noise(command: str, capsys: pytest.CaptureFixture[str]):
    options = import_module(f"ghostnets.cli.options.{MODULES.get(command, command)}")
    with pytest.raises(SystemExit):
        getattr(options, f"{command.title()}Command").parse(["--help"])
    printed = capsys.readouterr().out
    for noise in ("{None}", "(default: )", "(default: None)", "(default: False)", "``"):
        assert noise not in printed
    assert not re.search(r"^. --no-", printed, flags=re.MULTILINE)  # a switch that is on is shown with both names


@pytest.mark.parametrize("recipe", RECIPES)
def test_train_options_take_their_values_from_the_recipe(recipe: str):
    assert TrainCommand.parse(["--recipe", recipe]).recipe == RECIPES[recipe]


def test_train_switches_can_be_set_both_ways():
    parse = TrainCommand.parse
    assert parse(["--recipe", "finetune-head", "--no-frozen"]).recipe == RECIPES["finetune-head"].changed(frozen=False)
    assert parse(["--recipe", "finetune-head", "--frozen"]).recipe == RECIPES["finetune-head"]
    changes = parse(["--no-flip", "--weights", "none"]).changes()
    assert (changes["flip"], changes["weights"]) == ("none", None)
    assert "lr" not in changes  # it depends on the recipe
    assert type(parse([]).recipe) is Recipe


def test_train_knows_which_options_are_given():
    """Whatever other recipes have: ``--frozen`` alone was rejected for the color_jitter of ``detect``."""
    given = TrainCommand.parse(["photos", "--frozen", "--batch_size=8", "--lr", "0.001", "--no-compile"]).changes()
    assert given == {"frozen": True, "batch_size": 8, "lr": 0.001, "compile": False}


def test_control_characters_of_arguments_are_escaped(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["info", "ghostnet_100", "x\x1b[31mred"])
    assert caught.value.code == 2
    printed = "".join(capsys.readouterr())
    assert "\x1b" not in printed
    assert "x\\x1b[31mred" in printed


def test_every_field_of_the_recipe_has_its_help_however_docstrings_are_compiled(monkeypatch: pytest.MonkeyPatch):
    """Python 3.13 removes the indentation of docstrings."""
    expected = _recipe_help()
    assert set(expected) == set(Recipe.__annotations__)
    monkeypatch.setattr(Recipe, "__doc__", inspect.cleandoc(Recipe.__doc__))
    assert _recipe_help() == expected
