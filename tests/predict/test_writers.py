"""Writers of predictions."""


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
        "'\td,0.000000",
        "e=f,0.000000",
    ]
    JsonLinesWriter.write_table(columns, tmp_path / "a.jsonl")
    assert '{"path": "=HYPERLINK(1)"' in (tmp_path / "a.jsonl").read_text(encoding="utf-8")
