"""``ghostnets profile`` in the engine, of a name and of a checkpoint."""

import json
from pathlib import Path

import pytest

from ghostnets.cli import profile as verb
from ghostnets.cli.main import main
from ghostnets.measure import MachineLimits


@pytest.fixture(autouse=True)
def _known_limits(monkeypatch: pytest.MonkeyPatch):
    """Measuring them takes seconds, and another test does."""
    monkeypatch.setattr(
        verb, "measure_limits", lambda threads: MachineLimits(threads, {"f32": 1e11}, ((1 << 30, 1e10),))
    )


def test_a_table_by_layer_and_by_kind(capsys: pytest.CaptureFixture[str]):
    arguments = ["profile", "ghostnet_050", "--backend", "engine", "--image-size", "32", "--runs", "2"]
    assert main([*arguments, "--layers"]) == 0
    table = capsys.readouterr().out
    assert "blocks.0.0.ghost1" in table
    assert "of the limit" in table
    assert main(arguments) == 0
    assert "squeeze_excite" in capsys.readouterr().out


def test_a_checkpoint_in_either(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    path = str(tiny_run / "best.safetensors")
    for backend, rows in (("engine", "layers"), ("eager", "modules")):
        assert main(["profile", path, "--backend", backend, "--runs", "2", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert any(row["name"] == "conv_stem" and row["macs"] > 0 for row in answer[rows])


def test_another_backend_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["profile", "ghostnet_050", "--backend", "openvino"]) != 0
    assert "--backend is openvino; it must be eager or engine" in capsys.readouterr().err
