"""Data sets of Hugging Face: Arrow files of ``save_to_disk``, Parquet files of the hub, and their caches."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_layouts import read

from ghostnets.data import DataSpec, open_folder
from ghostnets.data.labelled_arrow import find_cached_dataset
from ghostnets.errors import DataError
from ghostnets.preprocessing import Preprocessing

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}
EXPECTED = "cat,dog: train 2/2 val 1/1"


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(variable, raising=False)


def draw(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 20, 3, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def build_table(labels: list[Any], feature: dict[str, Any] | None = CLASSES) -> Any:
    """A table as ``datasets`` writes it, with its features in the metadata of the schema."""
    images = [{"bytes": draw(i), "path": None if i % 2 else f"dir/{i}.png"} for i in range(len(labels))]
    columns = [pa.array(images, IMAGE), pa.array(labels)]
    features = {"image": {"_type": "Image"}, "label": feature}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if feature else None
    schema = pa.schema([("image", IMAGE), ("label", columns[1].type)], metadata=metadata)
    return pa.table(columns, schema=schema)


def write_stream(path: Path, table: Any, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=4)


def test_saved_data_set_is_read_in_place(tmp_path: Path):
    write_stream(tmp_path / "d" / "data-00000-of-00001.arrow", build_table([0, 1] * 3))
    assert read(tmp_path / "d") == EXPECTED
    source = open_folder(tmp_path / "d", val_share=0.01)
    images = source.load(Preprocessing.standard(8, 3)).train
    colors = sorted(int(images[i][0, 0, 0]) for i in range(len(images)))
    assert set(colors) < {0, 20, 40, 60, 80, 100}
    assert images.name(0).startswith(f"{tmp_path}/d/data-00000-of-00001.arrow:000000")
    assert not (tmp_path / "cache").exists()


def test_splits_of_dict_and_names_of_labels_are_read(tmp_path: Path):
    for split in ("train", "validation"):
        write_stream(tmp_path / "d" / split / "data-0.arrow", build_table(["dog", "cat"], None))
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert read(tmp_path / "d") == "cat,dog: train 1/1 val 1/1"


def test_data_set_of_hub_is_read_from_cache(tmp_path: Path):
    with pytest.raises(DataError, match=r"me/pets is not in the cache .* `hf download me/pets --repo-type dataset`"):
        find_cached_dataset("hf://datasets/me/pets")
    folder = tmp_path / "cache" / "huggingface" / "hub" / "datasets--me--pets" / "snapshots" / "abc" / "data"
    folder.mkdir(parents=True)
    parquet.write_table(build_table([0, 1] * 3), folder / "train-00000-of-00001.parquet")
    for _ in range(2):  # the second time from the copy of the images
        source = DataSpec("hf://datasets/me/pets").open()
        assert (source.name, source.class_counts) == ("pets", {"train": (2, 2), "val": (1, 1)})
    assert len(source.load(Preprocessing.standard(8, 3)).train) == 4


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        ([0, -1, 1, None], CLASSES, "2 of 4 images in .* have no label"),
        ([[0], [1], [0, 1], []], None, "several labels per image"),
        ([0, 0], CLASSES, r"single class \(cat\)"),
    ],
)
def test_labels_are_rejected_with_reason(tmp_path: Path, labels: list[Any], feature: dict[str, Any], message: str):
    write_stream(tmp_path / "x.arrow", build_table(labels, feature))
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


def test_damaged_and_other_files_are_rejected(tmp_path: Path):
    (tmp_path / "x.arrow").write_bytes(b"hello world")
    with pytest.raises(DataError, match="cannot be read as an Arrow file"):
        open_folder(tmp_path)
    write_stream(tmp_path / "x.arrow", pa.table({"a": [1]}))
    with pytest.raises(DataError, match=r"has no column of images \(it has a\)"):
        open_folder(tmp_path)
    write_stream(tmp_path / "x.arrow", build_table([0, 1]), options=pa.ipc.IpcWriteOptions(compression="zstd"))
    with pytest.raises(DataError, match="is compressed"):
        open_folder(tmp_path)
    (tmp_path / "x.arrow").rename(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="cannot be read as a Parquet file"):
        open_folder(tmp_path)


def test_columns_and_classes_that_are_not_used_are_named(tmp_path: Path):
    names = {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}
    table = build_table([0, 1] * 3, names)
    metadata = json.loads(table.schema.metadata[b"huggingface"])
    metadata["info"]["features"]["coarse"] = {"names": ["pet"], "_type": "ClassLabel"}
    table = table.append_column("coarse", pa.array([0] * 6)).append_column("depth", table.column("image"))
    table = table.replace_schema_metadata({b"huggingface": json.dumps(metadata).encode()})
    write_stream(tmp_path / "d" / "train-0.arrow", table)
    write_stream(tmp_path / "d" / "more.arrow", build_table([0, 0, 1, 1], None))
    write_stream(tmp_path / "d" / "test.arrow", table)
    source = open_folder(tmp_path / "d")
    assert source.class_names == ("0", "1", "cat", "dog")
    assert set(source.notes) >= {
        "of the columns of images image, depth the first is read",
        "the labels are read from the column label, not from coarse",
        "the classes have no names: the numbers of the column label are used",
        "no class of the network: eel (declared in the data set, but without training images)",
        "more.arrow is read as training images: its name has no split",
    }


def test_label_beyond_declared_classes_is_rejected(tmp_path: Path):
    write_stream(tmp_path / "d" / "a.arrow", build_table([0, 1, 2, -1]))
    with pytest.raises(
        DataError, match=r"the column label of .*a.arrow has the label 2, but names 2 classes \(0 to 1\)"
    ):
        open_folder(tmp_path / "d")


@pytest.mark.parametrize("metadata", [b"{", b"null", b'{"info": 3}', b'{"info": {"features": 3}}'])
@pytest.mark.parametrize("name", ["a.arrow", "a.parquet"])
def test_damaged_metadata_are_named(tmp_path: Path, name: str, metadata: bytes):
    table = build_table([0, 1]).replace_schema_metadata({b"huggingface": metadata})
    path = tmp_path / "d" / name
    write_stream(path, table)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    with pytest.raises(DataError, match=rf"the metadata of .*{name} \(huggingface\) is damaged"):
        open_folder(path.parent)


def test_classes_without_a_list_of_names_are_numbered(tmp_path: Path):
    write_stream(tmp_path / "d" / "a.arrow", build_table([0, 1] * 3, {"names": 2, "_type": "ClassLabel"}))
    assert open_folder(tmp_path / "d").class_names == ("0", "1")
