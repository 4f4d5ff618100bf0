"""``ghostnets list`` and the generated docs/models.md."""

import json
from pathlib import Path

import pytest

import ghostnets
from ghostnets.checkpoints.hub import WEIGHTS
from ghostnets.cli import list as list_verb
from ghostnets.models import list_models, model_entry

DOCUMENT = Path(ghostnets.__file__).parents[1] / "docs" / "models.md"


def test_the_table_names_every_network(capsys):
    assert list_verb.main([]) == 0
    printed = capsys.readouterr().out
    for name in list_models():
        assert name in printed
    assert "timm: 73.958, official: 73.98" in printed
    assert "not measured here" in printed


def test_json(capsys):
    assert list_verb.main(["--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == list_models()
    assert result["ghostnetv2_050"]["weights"] == []
    for name, row in result.items():
        variant = model_entry(name).variant
        assert (row["params"], row["macs"], row["top1"]) == (variant.params, variant.macs, variant.top1)
        assert [w["url"] for w in row["weights"]] == [w.url for w in WEIGHTS.get(name, ())]


def test_the_document_is_what_the_script_writes():
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == list_verb.models_document(), "run: python scripts/make_models_doc.py"
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
        list_verb.main(["--help"])
    assert caught.value.code == 0
    assert "usage: ghostnets list" in capsys.readouterr().out
