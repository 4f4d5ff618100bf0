"""Prediction files: an interrupted run, resumed, writes the file of an uninterrupted one."""

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from brightness_model import brightness_classifier, gray_images

from ghostnets.artefacts import Prediction
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.predict import PredictionFile, find_inputs, find_writer, predict_images, prediction_file, streaming
from ghostnets.predict.writers import WRITERS, JsonLinesWriter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 images, one of them damaged; chunks of one batch of 4."""
    monkeypatch.setattr(streaming, "BATCH_SIZE", 4)
    monkeypatch.setattr(prediction_file, "CHUNK_SECONDS", -1)
    gray_images(tmp_path / "x", 60)[17].write_bytes(b"damaged")
    return tmp_path / "x"


def run(folder: Path, out: Path, *, stop: object = None, features: bool = False, top: int = 2) -> PredictionFile:
    """``stop(batch number)`` may raise, after the batch was computed."""
    with PredictionFile(
        out, settings={"top": top, "features": features}, writer=find_writer(out)(top=top, features=features)
    ) as file:
        inputs = file.remaining(find_inputs([folder]))
        for number, batch in enumerate(
            predict_images(brightness_classifier(), inputs, top=top, features=features, workers=2)
        ):
            if callable(stop):
                stop(number)
            file.write(batch)
    return file


def interrupt(at: int):
    def stop(number: int) -> None:
        if number == at:
            raise KeyboardInterrupt

    return stop


def rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra parquet)")
    return list(parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("is_buffered", [False, True])
def test_resumed_file_equals_uninterrupted_file(
    folder: Path, tmp_path: Path, monkeypatch, suffix: str, is_buffered: bool
):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (extra parquet)")
    if is_buffered:  # nothing is written before the end or the signal
        monkeypatch.setattr(prediction_file, "CHUNK_SECONDS", 1000)
    uninterrupted = tmp_path / f"whole{suffix}"
    file = run(folder, uninterrupted)
    assert (file.rows, file.errors) == (60, 1)
    for at in (0, 1, 7, 14):
        out = tmp_path / f"at{at}{suffix}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, out, stop=interrupt(at))
        assert not out.exists()
        file = run(folder, out)
        assert (file.rows, file.errors) == (60, 1)
        assert rows(out) == rows(uninterrupted)
        if suffix != ".parquet":
            assert out.read_bytes() == uninterrupted.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_repeated_interruptions(folder: Path, tmp_path: Path):
    uninterrupted, out = tmp_path / "whole.csv", tmp_path / "a.csv"
    run(folder, uninterrupted)
    stops = 0
    while not out.exists():
        try:
            run(folder, out, stop=interrupt(2))
        except KeyboardInterrupt:
            stops += 1
    assert stops == 7
    assert out.read_bytes() == uninterrupted.read_bytes()


def test_kill_while_chunk_is_written(folder: Path, tmp_path: Path):
    """After kill -9 the chunk exists, complete or not, but not in the manifest."""
    uninterrupted, out = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    run(folder, uninterrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop=interrupt(5))
    manifest = json.loads((tmp_path / "a.jsonl.partial" / "manifest.json").read_text())
    assert [row for row, _ in manifest["parts"]] == [4] * 5
    (tmp_path / "a.jsonl.partial" / "00005").write_text('{"path": "half')
    (tmp_path / "a.jsonl.partial" / ".00006.xyz.partial").write_text("x")
    run(folder, out)
    assert out.read_bytes() == uninterrupted.read_bytes()
    assert not (tmp_path / "a.jsonl.partial").exists()


def test_signal_while_chunk_is_written(folder: Path, tmp_path: Path, monkeypatch):
    """The signal comes before or after each call of a function that writes."""
    uninterrupted = tmp_path / "whole.csv"
    run(folder, uninterrupted)
    calls = itertools.count()
    real = prediction_file.write_text
    for at in range(0, 24, 3):
        out, calls = tmp_path / f"{at}.csv", itertools.count()

        def interrupted(path, text, at=at, calls=calls):
            for moment in range(2):
                if next(calls) == at:
                    raise KeyboardInterrupt
                if not moment:
                    real(path, text)

        monkeypatch.setattr(prediction_file, "write_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, out)
        monkeypatch.setattr(prediction_file, "write_text", real)
        run(folder, out)
        assert out.read_bytes() == uninterrupted.read_bytes()


def test_chunks_of_other_settings_or_images_are_rejected(folder: Path, tmp_path: Path):
    out = tmp_path / "a.csv"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop=interrupt(3))
    with pytest.raises(ConfigurationError, match="a run with other settings"):
        run(folder, out, top=1)
    (folder / "0003.png").rename(folder / "0003b.png")
    with pytest.raises(DataError, match="the first 12 images are not those"):
        run(folder, out)
    (folder / "0003b.png").rename(folder / "0003.png")
    assert run(folder, out).rows == 60


def test_resume_with_fewer_images_is_rejected(folder: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "a.csv", stop=interrupt(3))
    for path in list(folder.iterdir())[5:]:
        path.unlink()
    with pytest.raises(DataError, match="the first 12 images"):
        run(folder, tmp_path / "a.csv")


def test_concurrent_writers_are_rejected(folder: Path, tmp_path: Path):
    def second(number: int) -> None:
        if number == 1:
            with pytest.raises(ConfigurationError, match="another process is writing"):
                run(folder, tmp_path / "a.csv")

    assert run(folder, tmp_path / "a.csv", stop=second).rows == 60


def test_existing_file_is_replaced_only_when_complete(folder: Path, tmp_path: Path):
    out = tmp_path / "a.csv"
    out.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop=interrupt(3))
    assert out.read_text() == "old"
    run(folder, out)
    assert len(rows(out)) == 60


def test_damaged_manifest_is_rejected(folder: Path, tmp_path: Path):
    (tmp_path / "a.csv.partial").mkdir()
    (tmp_path / "a.csv.partial" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        run(folder, tmp_path / "a.csv")


def test_buffered_rows_are_bounded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(prediction_file, "CHUNK_ROWS", 100)
    most = 0
    with PredictionFile(tmp_path / "a.jsonl", settings={}, writer=JsonLinesWriter(top=1, features=False)) as file:
        for start in range(0, 2000, 10):
            file.write([Prediction(str(start + index), ("a",), (1.0,)) for index in range(10)])
            most = max(most, len(file._buffer))
    assert (most, file.rows) == (90, 2000)
    assert [row["path"] for row in rows(tmp_path / "a.jsonl")] == list(map(str, range(2000)))


def test_formats_agree(folder: Path, tmp_path: Path):
    found = {suffix: rows(run(folder, tmp_path / f"a{suffix}").path) for suffix in (".csv", ".jsonl", ".parquet")}
    for comma, line, table in zip(*found.values(), strict=True):
        assert comma["path"] == line["path"] == table["path"]
        assert (comma["error"] or None) == line["error"] == table["error"]
        for rank in (1, 2):
            best = line["answers"][rank - 1] if line["answers"] else {"class": None, "probability": None}
            assert (comma[f"class_{rank}"] or None) == best["class"] == table[f"class_{rank}"]
            assert table[f"probability_{rank}"] == best["probability"]
            if best["class"]:
                assert float(comma[f"probability_{rank}"]) == pytest.approx(best["probability"], abs=1e-6)
    assert found[".csv"][17]["error"].startswith(found[".csv"][17]["path"])


def test_features_in_json_lines_and_parquet(folder: Path, tmp_path: Path):
    lines = rows(run(folder, tmp_path / "a.jsonl", features=True).path)
    table = rows(run(folder, tmp_path / "a.parquet", features=True).path)
    assert [line.get("features") for line in lines] == [row["features"] for row in table]
    assert lines[17].get("features") is None
    np.testing.assert_allclose(table[1]["features"], [37 / 255, 1 - 37 / 255], atol=1e-6)
    with pytest.raises(ConfigurationError, match="cannot hold --features"):
        run(folder, tmp_path / "a.csv", features=True)
    with pytest.raises(ConfigurationError, match=r"suffix must be one of \.csv, \.jsonl, \.parquet"):
        run(folder, tmp_path / "a.txt")


def unusual_names() -> Iterator[str]:
    yield from ('comma, "quote"', "line\nbreak", "caf\\udce9.png", "日本語.png", "", "=1+1")


def test_unusual_names(tmp_path: Path):
    for suffix in (".csv", ".jsonl", ".parquet"):
        with PredictionFile(
            tmp_path / f"a{suffix}", settings={}, writer=WRITERS[suffix](top=1, features=False)
        ) as file:
            file.write([Prediction(name, ("a\tb",), (0.5,)) for name in unusual_names()])
        expected = list(unusual_names())
        if suffix == ".csv":  # a spreadsheet must not execute a cell
            expected = [f"'{name}" if name.startswith("=") else name for name in expected]
        assert [row["path"] for row in rows(file.path)] == expected
