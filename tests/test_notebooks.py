"""The notebooks of ``examples/notebooks``: their cells run in order in a new folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ghostnets

ROOT = Path(ghostnets.__file__).parents[1]


def code(name: str) -> str:
    cells = json.loads((ROOT / "examples" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_notebooks_have_no_outputs():
    for path in (ROOT / "examples" / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [("first_network", ["% of val", "largest difference"]), ("ghosts", ["intrinsic maps", "explained:", "changes"])],
)
def test_notebook_runs(tmp_path: Path, name: str, expected: list[str]):
    (tmp_path / "notebook.py").write_text(code(name), encoding="utf-8")
    command = [sys.executable, "notebook.py"]
    environment = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(text in result.stdout for text in expected), result.stdout
