"""The table of formats by task in docs/export.md, against the code."""

from pathlib import Path

import pytest

from ghostnets.artefacts import FORMATS
from ghostnets.cli.options.export import WEB
from ghostnets.errors import ConfigurationError
from ghostnets.export import export_model
from ghostnets.export.exporter import MAP_FORMATS
from ghostnets.export.report import BOX_TOLERANCES, MASK_TOLERANCES

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"
COLUMNS = ("classify", "detect", "segment")


def read_table() -> dict[str, dict[str, list[str]]]:
    """Return the precisions by format and task; none where the table says that it is rejected."""
    lines = DOCUMENT.read_text(encoding="utf-8").split("### By task")[1].split("\n\n")[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        name.strip("`"): {
            task: [] if cell == "rejected" else cell.split(", ") for task, cell in zip(COLUMNS, cells, strict=True)
        }
        for name, *cells in rows
    }


def test_table_is_what_the_code_exports():
    table = read_table()
    assert table.pop(WEB) == {task: ["f32"] for task in COLUMNS}
    assert table == {
        name: {
            "classify": list(entry.precisions),
            **{task: list(MAP_FORMATS[task].get(name, ())) for task in ("detect", "segment")},
        }
        for name, entry in FORMATS.items()
    }
    for task, tolerances in (("detect", BOX_TOLERANCES), ("segment", MASK_TOLERANCES)):
        assert {each for precisions in MAP_FORMATS[task].values() for each in precisions} <= set(tolerances)


def test_rejected_formats_are_rejected_in_a_sentence(tiny_segmenter: Path):
    rejected = [name for name, tasks in read_table().items() if not tasks["segment"]]
    assert rejected
    for name in rejected:
        with pytest.raises(ConfigurationError, match=f"which format {name} is not tested with; choose onnx, "):
            export_model(tiny_segmenter, format=name)
