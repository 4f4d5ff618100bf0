"""Writers of predictions."""

import pytest


def test_csv_precedes_formulas_by_an_apostrophe(tmp_path):
    """Text that a spreadsheet would execute is marked in CSV alone; negative numbers are numbers."""
    from ghostnets.predict.writers import CsvWriter, JsonLinesWriter

    columns = {"path": ["=HYPERLINK(1)", "@a", "-b", "+c", "\td", "e=f"], "loss": [-0.5, 1.0, 0.0, 0.0, 0.0, 0.0]}
    CsvWriter.write_table(columns, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [
        "'=HYPERLINK(1),-0.500000",
        "'@a,1.000000",
        "'-b,0.000000",
        "'+c,0.000000",
        "'\\td,0.000000",
        "e=f,0.000000",
    ]
    JsonLinesWriter.write_table(columns, tmp_path / "a.jsonl")
    assert '{"path": "=HYPERLINK(1)"' in (tmp_path / "a.jsonl").read_text(encoding="utf-8")


def test_answer_of_a_threshold_has_a_column_and_a_key(tmp_path):
    from ghostnets.artefacts import Prediction
    from ghostnets.predict.writers import CsvWriter, JsonLinesWriter, ParquetWriter, as_dict

    rows = [
        Prediction("a.png", ("cat",), (0.9,), answer="cat"),
        Prediction("b.png", ("cat",), (0.4,), answer="none of these"),
        Prediction("c.png", (), (), "unreadable"),
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    for writer in (CsvWriter, JsonLinesWriter, ParquetWriter):
        opened = writer(top=1, features=False, answer=True)
        opened.write(rows, tmp_path / "chunk")
        opened.concatenate([tmp_path / "chunk"], tmp_path / f"all{writer.suffix}")
    assert (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines() == [
        "path,answer,class_1,probability_1,error",
        "a.png,cat,cat,0.900000,",
        "b.png,none of these,cat,0.400000,",
        "c.png,,,,unreadable",
    ]
    assert list(as_dict(rows[0])) == ["path", "answer", "answers", "error"]
    assert list(as_dict(rows[2])) == ["path", "answers", "error"]
    assert parquet.read_table(tmp_path / "all.parquet")["answer"].to_pylist() == ["cat", "none of these", None]
