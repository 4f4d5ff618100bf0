"""The house: who may import whom, as drawn in docs/architecture.md, and what importing costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ghostnets

ROOT = Path(ghostnets.__file__).parent
DOCUMENT = ROOT.parent / "docs" / "architecture.md"


def allowed() -> dict[str, set[str]]:
    """The table of docs/architecture.md: room -> rooms it may import."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}


def rooms() -> set[str]:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    return folders | {p.stem for p in ROOT.glob("*.py") if not p.stem.startswith("__")}


def imports(path: Path) -> set[str]:
    """Rooms of this package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{alias.name}" if node.module == "ghostnets" else node.module or ""
                for alias in node.names
            ]
        found |= {name.split(".")[1] for name in names if name.startswith("ghostnets.")}
    return found - {"__version__"}


def test_the_table_names_every_room():
    assert set(allowed()) == rooms()


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_imports_what_the_table_allows(room: str):
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else sorted((ROOT / room).rglob("*.py"))
    for file in files:
        assert imports(file) - {room} <= allowed()[room], file


def test_the_table_has_no_circle():
    table = {room: set(others) for room, others in allowed().items()}
    while table:
        leaves = {room for room, others in table.items() if not others & table.keys()}
        assert leaves, f"a circle among {sorted(table)}"
        for room in leaves:
            del table[room]


def test_every_name_of_the_front_door_opens():
    assert ghostnets.__all__ == sorted(ghostnets.__all__)
    for name in ghostnets.__all__:
        assert callable(getattr(ghostnets, name)), name  # not a room of the same name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ghostnets.nothing


def test_importing_and_help_load_no_torch():
    code = "import sys, ghostnets.cli.main as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_tests_mirror_the_package():
    for file in sorted(ROOT.rglob("*.py")):
        relative = file.relative_to(ROOT)
        if file.stem.startswith("__") or relative.parent == Path():
            continue
        assert (ROOT.parent / "tests" / relative.parent).is_dir(), relative
