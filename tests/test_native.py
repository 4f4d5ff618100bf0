import sys
from pathlib import Path

import pytest
from conftest import make_images

from ghostnets import native
from ghostnets.cli.main import main
from ghostnets.errors import EngineError
from ghostnets.native import ENGINE, TRAINING, import_native, missing_native


def test_nothing_is_missing_where_the_modules_import():
    pytest.importorskip(ENGINE)
    assert missing_native(ENGINE) is missing_native(TRAINING) is None


def test_train_and_predict_report_missing_native_modules(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    photos = make_images(tmp_path / "photos", classes={"dark": 1})  # one class cannot be trained
    monkeypatch.setitem(sys.modules, ENGINE, None)
    monkeypatch.setitem(sys.modules, TRAINING, None)
    capsys.readouterr()
    assert main(["predict", str(tiny_run / "best.safetensors"), str(photos), "--json"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("note: the CPU engine could not be built")
    assert "run 'pip install --force-reinstall" in first
    assert main(["train", str(photos), "--runs-dir", str(tmp_path / "runs")]) == 1
    assert capsys.readouterr().err.startswith("note: the fused training kernels could not be built")


def test_modules_of_another_system_are_reported_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    def fail(name: str) -> None:
        raise ImportError("libc.so.6: version `GLIBC_2.38' not found")

    monkeypatch.setattr(native, "import_module", fail)
    with pytest.raises(EngineError, match=r"built for another system .*GLIBC_2.38.* run 'pip install"):
        import_native(ENGINE)
    assert "built for another system" in str(missing_native(TRAINING))
