"""What is counted, against what is published, but where the table itself says that they differ."""

import functools
import json

import pytest

from ghostnets.bench.papers import TABLES, PaperRow, PaperTable, counted
from ghostnets.cli import tables as verb
from ghostnets.cli.main import main

counted_once = functools.cache(counted)  # networks of tens of layers, which several tests ask for

# Sizes that no reading of the paper reaches.
UNREACHED = {"Ghost-ResNet-50 (s = 2)", "Ghost-ResNet-50 (s = 4)", "Ghost-ResNet-56 (s = 2)", "GhostNet 1.1x"}
ROWS = [
    pytest.param(table, row, id=f"{table.source}: {row.name}")
    for table in TABLES
    for row in table.rows
    if row.build is not None and row.name not in UNREACHED
]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_counted_is_published(table: PaperTable, row: PaperRow):
    cost = counted_once(row, table.image_size)
    assert cost is not None
    for published, here in zip((row.params, row.macs), cost, strict=True):
        assert published is None or here == pytest.approx(published, rel=0.02, abs=0.05)  # as far as digits are printed


def test_what_is_not_reached_is_said():
    for table in TABLES:
        if {row.name for row in table.rows} & UNREACHED:
            assert table.remark


def test_every_row_fills_its_columns():
    for table in TABLES:
        assert all(len(row.results) == len(table.results) for row in table.rows)
        assert len({row.name for row in table.rows}) == len(table.rows)


def test_the_verb(capsys, monkeypatch):
    monkeypatch.setattr(verb, "counted", counted_once)
    assert main(["tables"]) == 0
    printed = capsys.readouterr().out
    assert all(table.title in printed for table in TABLES)
    assert "not measured here" in printed
    assert main(["tables", "--json"]) == 0
    tables = {table["title"]: table for table in json.loads(capsys.readouterr().out)}
    rows = {row["name"]: row for row in tables["Small networks on ImageNet"]["rows"]}
    assert rows["GhostNet 1.0x"]["counted_macs"] == pytest.approx(141.15, abs=0.01)
    assert rows["MnasNet-A1"]["counted_macs"] is None
