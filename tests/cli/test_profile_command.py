"""``ghostnets profile`` with the engine, for a model name and for a checkpoint."""

import json
from pathlib import Path

import pytest

from ghostnets.cli import profile as profile_command
from ghostnets.cli.main import main
from ghostnets.measure import MachineLimits


@pytest.fixture(autouse=True)
def _known_limits(monkeypatch: pytest.MonkeyPatch):
    """Replace the measurement, which takes seconds and has its own test."""
    monkeypatch.setattr(
        profile_command, "measure_limits", lambda threads: MachineLimits(threads, {"f32": 1e11}, ((1 << 30, 1e10),))
    )


def test_engine_profile_prints_rows_by_layer_and_by_kind(capsys: pytest.CaptureFixture[str]):
    arguments = ["profile", "ghostnet_050", "--backend", "engine", "--image-size", "32", "--runs", "2"]
    assert main([*arguments, "--layers"]) == 0
    table = capsys.readouterr().out
    assert "blocks.0.0.ghost1" in table
    assert "of the limit" in table
    assert main(arguments) == 0
    assert "squeeze_excite" in capsys.readouterr().out


def test_profile_accepts_checkpoint_in_both_backends(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    path = str(tiny_run / "best.safetensors")
    for backend, rows in (("engine", "layers"), ("eager", "modules")):
        assert main(["profile", path, "--backend", backend, "--runs", "2", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert any(row["name"] == "conv_stem" and row["macs"] > 0 for row in result[rows])


def test_profile_rejects_unsupported_backend(capsys: pytest.CaptureFixture[str]):
    assert main(["profile", "ghostnet_050", "--backend", "openvino"]) != 0
    assert "there is no backend named 'openvino'; did you mean engine?" in capsys.readouterr().err
