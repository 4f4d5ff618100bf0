"""The examples of docs/detection.md that need no file."""

import re
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[3] / "docs" / "detection.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## ([\w ]+)\n(?:(?!^## ).*\n)*?```python\n((?:.*\n)*?)```", DOCUMENT, re.MULTILINE)
RUN = ("Detectors", "Checkpoints", "Average precision", "Training")
EXAMPLES = {title: code for title, code in BLOCKS if title in RUN}


@pytest.mark.parametrize("title", RUN)
def test_example_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # one writes a file
    names: dict = {}
    exec(compile(EXAMPLES[title], title, "exec"), names)
    if title == "Detectors":
        assert len(names["found"]) == 2
    elif title == "Average precision":
        assert names["metrics"].at_75 == 1  # an IoU of 0.9
    elif title == "Checkpoints":
        assert names["detector"].num_classes == 2
    else:
        assert names["losses"].total.isfinite()
        assert (tmp_path / "detector.pt").exists()
