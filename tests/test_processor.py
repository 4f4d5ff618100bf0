import platform
from pathlib import Path

from ghostnets.processor import processor_name


def test_processor_name_falls_back_to_architecture(monkeypatch):
    assert processor_name()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert processor_name() == (platform.processor() or platform.machine())
