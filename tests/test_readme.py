"""The figures of the README."""

import re
from pathlib import Path

import ghostnets
from ghostnets.models import list_models

README = (Path(ghostnets.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MODELS = (Path(ghostnets.__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")


def test_network_table_matches_generated_table():
    """Parameters, MACs and top-1 of docs/models.md, rounded; V3 with merged branches."""
    rows = re.findall(r"^\| (`ghostnet.*?) \| (.*?) \| (.*?) \| (.*?) \|$", README, flags=re.MULTILINE)
    found = set()
    for networks, *columns in rows:
        first, *others = re.findall(r"`(\w+)`", networks)
        names = [first, *(first.removesuffix("050") + width for width in others)]
        merged = ", merged" if "merged" in networks else ""
        for name, params, macs, top1 in zip(names, *(column.split(", ") for column in columns), strict=True):
            cells = re.search(rf"^\| `{name}`{merged} \| (.*)$", MODELS, flags=re.MULTILINE)[1].split(" | ")
            assert f"{float(cells[0].split()[0]):.1f}" == params
            assert f"{float(cells[1].split()[0]):.0f}" == macs
            assert cells[3] == top1
            found.add(name)
    assert found == {name for name in list_models() if re.match(r"ghostnet(v\d)?_", name) and "d_li14" not in name}


def test_changelog_has_current_version():
    changelog = (Path(ghostnets.__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{ghostnets.__version__}]" in changelog
