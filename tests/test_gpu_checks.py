"""``scripts/gpu_checks.py`` without a GPU: every check passes, smaller."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from ghostnets.errors import MissingExtraError

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_checks.py"


def test_all_checks_pass_on_the_cpu(capsys: pytest.CaptureFixture[str]):
    """Training, resuming, prediction and maps are checked; export, tested elsewhere, and timm are replaced."""
    names = runpy.run_path(str(SCRIPT))
    names["OPTIONS"].update(model="ghost_resnet20", image_size=32, epochs=4)

    def export_model(checkpoint: Path, path: Path, **_: object) -> SimpleNamespace:
        assert checkpoint.is_file()
        return SimpleNamespace(file=path.name, comparison=SimpleNamespace(max_difference=0.0))

    def require(library: str, *, extra: str) -> None:
        raise MissingExtraError(f"{library} of the extra {extra} is not installed.")

    names["main"].__globals__.update(export_model=export_model, require=require)
    assert names["main"](["--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device   cpu, torch ")
    states = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert states == {
        **dict.fromkeys(("train", "resume", "predict", "export", "explain"), "ok:"),
        "speed": "skipped:",
    }


def test_failed_check_is_named_and_the_exit_code_is_1(capsys: pytest.CaptureFixture[str], monkeypatch):
    names = runpy.run_path(str(SCRIPT))
    for check in ("train", "resume", "export", "explain", "speed"):
        monkeypatch.setattr(names["Checks"], check, lambda self: "fine")
    monkeypatch.setattr(names["Checks"], "predict", lambda self: names["check"](False, "probabilities differ"))
    assert names["main"](["--device", "cpu"]) == 1
    assert "predict  FAILED: probabilities differ" in capsys.readouterr().out
