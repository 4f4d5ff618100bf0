"""Stopped wherever, the file in the end is that of an undisturbed run."""

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from known_network import brightness, grey_images

from ghostnets.errors import ConfigurationError, DataError
from ghostnets.predict import AnswerFile, Prediction, answer_file, answers, find_inputs, predict_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 images, one of them damaged; parts of one batch of 4."""
    monkeypatch.setattr(answers, "BATCH_SIZE", 4)
    monkeypatch.setattr(answer_file, "PART_SECONDS", -1)
    grey_images(tmp_path / "x", 60)[17].write_bytes(b"damaged")
    return tmp_path / "x"


def run(folder: Path, out: Path, *, stop: object = None, features: bool = False, top: int = 2) -> AnswerFile:
    """``stop(batch number)`` may raise, after the batch was computed."""
    with AnswerFile(out, settings={"top": top, "features": features}, top=top, features=features) as file:
        inputs = file.remaining(find_inputs([folder]))
        for number, batch in enumerate(predict_images(brightness(), inputs, top=top, features=features, workers=2)):
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
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow, of the extra parquet")
    return list(parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("waits", [False, True])
def test_stopped_at_any_batch(folder: Path, tmp_path: Path, monkeypatch, suffix: str, waits: bool):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, of the extra parquet")
    if waits:  # nothing is written before the end or the signal
        monkeypatch.setattr(answer_file, "PART_SECONDS", 1000)
    undisturbed = tmp_path / f"whole{suffix}"
    file = run(folder, undisturbed)
    assert (file.rows, file.errors) == (60, 1)
    for at in (0, 1, 7, 14):
        out = tmp_path / f"at{at}{suffix}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, out, stop=interrupt(at))
        assert not out.exists()
        file = run(folder, out)
        assert (file.rows, file.errors) == (60, 1)
        assert rows(out) == rows(undisturbed)
        if suffix != ".parquet":
            assert out.read_bytes() == undisturbed.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_stopped_again_and_again(folder: Path, tmp_path: Path):
    undisturbed, out = tmp_path / "whole.csv", tmp_path / "a.csv"
    run(folder, undisturbed)
    stops = 0
    while not out.exists():
        try:
            run(folder, out, stop=interrupt(2))
        except KeyboardInterrupt:
            stops += 1
    assert stops == 7
    assert out.read_bytes() == undisturbed.read_bytes()


def test_killed_while_a_part_is_written(folder: Path, tmp_path: Path):
    """What kill -9 leaves: the part, whole or not, but not in the manifest."""
    undisturbed, out = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    run(folder, undisturbed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop=interrupt(5))
    manifest = json.loads((tmp_path / "a.jsonl.partial" / "manifest.json").read_text())
    assert [row for row, _ in manifest["parts"]] == [4] * 5
    (tmp_path / "a.jsonl.partial" / "00005").write_text('{"path": "half')
    (tmp_path / "a.jsonl.partial" / ".00006.xyz.partial").write_text("x")
    run(folder, out)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert not (tmp_path / "a.jsonl.partial").exists()


def test_a_signal_while_a_part_is_written(folder: Path, tmp_path: Path, monkeypatch):
    """At each call of a function that writes, once before and once after it."""
    undisturbed = tmp_path / "whole.csv"
    run(folder, undisturbed)
    calls = itertools.count()
    real = answer_file.write_text
    for at in range(0, 24, 3):
        out, calls = tmp_path / f"{at}.csv", itertools.count()

        def disturbed(path, text, at=at, calls=calls):
            for moment in range(2):
                if next(calls) == at:
                    raise KeyboardInterrupt
                if not moment:
                    real(path, text)

        monkeypatch.setattr(answer_file, "write_text", disturbed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, out)
        monkeypatch.setattr(answer_file, "write_text", real)
        run(folder, out)
        assert out.read_bytes() == undisturbed.read_bytes()


def test_the_parts_of_another_run_are_refused(folder: Path, tmp_path: Path):
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


def test_fewer_images_than_before(folder: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "a.csv", stop=interrupt(3))
    for path in list(folder.iterdir())[5:]:
        path.unlink()
    with pytest.raises(DataError, match="the first 12 images"):
        run(folder, tmp_path / "a.csv")


def test_two_at_once_are_refused(folder: Path, tmp_path: Path):
    def second(number: int) -> None:
        if number == 1:
            with pytest.raises(ConfigurationError, match="another process is writing"):
                run(folder, tmp_path / "a.csv")

    assert run(folder, tmp_path / "a.csv", stop=second).rows == 60


def test_an_older_file_stands_until_the_new_one_is_whole(folder: Path, tmp_path: Path):
    out = tmp_path / "a.csv"
    out.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, stop=interrupt(3))
    assert out.read_text() == "old"
    run(folder, out)
    assert len(rows(out)) == 60


def test_a_manifest_that_was_changed(folder: Path, tmp_path: Path):
    (tmp_path / "a.csv.partial").mkdir()
    (tmp_path / "a.csv.partial" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        run(folder, tmp_path / "a.csv")


def test_few_rows_wait_in_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(answer_file, "PART_ROWS", 100)
    most = 0
    with AnswerFile(tmp_path / "a.jsonl", settings={}, top=1, features=False) as file:
        for start in range(0, 2000, 10):
            file.write([Prediction(str(start + index), ("a",), (1.0,)) for index in range(10)])
            most = max(most, len(file._waiting))
    assert (most, file.rows) == (90, 2000)
    assert [row["path"] for row in rows(tmp_path / "a.jsonl")] == list(map(str, range(2000)))


def test_the_formats_say_the_same(folder: Path, tmp_path: Path):
    found = {suffix: rows(run(folder, tmp_path / f"a{suffix}").path) for suffix in (".csv", ".jsonl", ".parquet")}
    for comma, line, table in zip(*found.values(), strict=True):
        assert comma["path"] == line["path"] == table["path"]
        assert (comma["error"] or None) == line["error"] == table["error"]
        for rank in (1, 2):
            answer = line["answers"][rank - 1] if line["answers"] else {"class": None, "probability": None}
            assert (comma[f"class_{rank}"] or None) == answer["class"] == table[f"class_{rank}"]
            assert table[f"probability_{rank}"] == answer["probability"]
            if answer["class"]:
                assert float(comma[f"probability_{rank}"]) == pytest.approx(answer["probability"], abs=1e-6)
    assert found[".csv"][17]["error"].startswith(found[".csv"][17]["path"])


def test_features_of_both_formats(folder: Path, tmp_path: Path):
    lines = rows(run(folder, tmp_path / "a.jsonl", features=True).path)
    table = rows(run(folder, tmp_path / "a.parquet", features=True).path)
    assert [line.get("features") for line in lines] == [row["features"] for row in table]
    assert lines[17].get("features") is None
    np.testing.assert_allclose(table[1]["features"], [37 / 255, 1 - 37 / 255], atol=1e-6)
    with pytest.raises(ConfigurationError, match="no place for --features"):
        run(folder, tmp_path / "a.csv", features=True)
    with pytest.raises(ConfigurationError, match=r"suffix must be one of \.csv, \.jsonl, \.parquet"):
        run(folder, tmp_path / "a.txt")


def names_of_all_sorts() -> Iterator[str]:
    yield from ('comma, "quote"', "line\nbreak", "caf\\udce9.png", "日本語.png", "", "=1+1")


def test_names_of_all_sorts(tmp_path: Path):
    for suffix in (".csv", ".jsonl", ".parquet"):
        with AnswerFile(tmp_path / f"a{suffix}", settings={}, top=1, features=False) as file:
            file.write([Prediction(name, ("a\tb",), (0.5,)) for name in names_of_all_sorts()])
        assert [row["path"] for row in rows(file.path)] == list(names_of_all_sorts())
