"""``ghostnets list`` and the generated docs/models.md."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ghostnets
from ghostnets.checkpoints.hub import WEIGHTS
from ghostnets.cli import list as list_command
from ghostnets.cli.list import models_document
from ghostnets.cli.main import main
from ghostnets.measure import Cost
from ghostnets.models import list_models, model_entry
from ghostnets.models.detection import list_detectors
from ghostnets.models.segmentation import list_segmenters

DOCUMENT = Path(ghostnets.__file__).parents[1] / "docs" / "models.md"


def test_table_lists_every_network(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in [*list_models(), *list_detectors(), *list_segmenters()]:
        assert name in printed
    assert "timm: 73.958, official: 73.98" in printed
    assert "not measured here" in printed
    assert "ghostnet_100_printed for ghostnet_100_d_li14" in printed


def test_pattern_selects_networks(capsys):
    assert list_models("ghostnetv2_1?0") == ["ghostnetv2_100", "ghostnetv2_130", "ghostnetv2_160"]
    assert main(["list", "ghostnetv2_1*"]) == 0
    printed = capsys.readouterr().out
    assert "ghostnetv2_160" in printed
    assert "ghostnetv2_050" not in printed
    assert main(["list", "ghostnetv2_1"]) == 1
    assert "did you mean ghostnetv2_1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def costs() -> Iterator[Callable[[str], tuple[Cost, Cost | None]]]:
    """Costs of a network by its name, counted once for the tests of this module."""
    cached = functools.cache(list_command._costs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_command, "_costs", cached)
        yield cached


def test_counts_are_those_of_the_registry(costs: Callable[[str], tuple[Cost, Cost | None]]):
    for name in list_models():
        variant, (cost, _) = model_entry(name).variant, costs(name)
        assert (round(cost.params / 1e6, 4), round(cost.macs / 1e6, 2)) == (variant.params, variant.macs), name


def test_table_rounds_counts_once(costs: Callable[[str], tuple[Cost, Cost | None]], capsys):
    """GhostNetV2 1.0x has 167.048 M multiply-adds: 167.05, and not 167.1 by way of 167.05."""
    assert main(["list"]) == 0
    cells = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    rows = {row[1]: row for row in cells if len(row) > 4}
    for name in list_models():
        cost, _ = costs(name)
        for cell, exact in [(rows[name][3], cost.params / 1e6), (rows[name][4], cost.macs / 1e6)]:
            digits = len(cell.partition(".")[2])
            assert cell == f"{exact:.{digits}f}", name


def test_json_has_registry_values(capsys):
    assert main(["list", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == list_models()
    assert result["ghostnetv2_050"]["weights"] == []
    for name, row in result.items():
        variant = model_entry(name).variant
        assert (row["params"], row["macs"], row["top1"]) == (variant.params, variant.macs, variant.top1)
        assert [w["url"] for w in row["weights"]] == [w.url for w in WEIGHTS.get(name, ())]


@pytest.mark.usefixtures("costs")
def test_models_document_is_up_to_date():
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == models_document(), "run: python scripts/make_models_doc.py"
    assert "python scripts/make_models_doc.py" in written
    for row in (  # as timm's networks count, V3 before and after its branches are merged
        "| `ghostnet_100` | 5.183 M | 141.15 M | 5.2 M, 141 M |",
        "| `ghostnetv3_100`, training form | 8.129 M | 404.13 M |",
        "| `ghostnetv3_100`, merged | 6.148 M | 167.05 M |",
        "| `ghost_resnet50` | 13.954 M | 2151.02 M | 13 M, 2200 M (1) | 75.0 |",
        "| `g_ghost_regnetx_032` | 10.511 M | 1801.75 M | 10.5 M, 1800 M | 77.8 |",
    ):
        assert row in written


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["list", "--help"])
    assert caught.value.code == 0
    assert "usage: ghostnets list" in capsys.readouterr().out
