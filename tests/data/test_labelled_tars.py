"""WebDataset tars without an index: which labels are read, and what is rejected."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from test_layouts import IMAGE, read

from ghostnets.data import DataSpec, open_folder, open_shards, write_shards
from ghostnets.errors import DataError
from ghostnets.preprocessing import Preprocessing

PNG = IMAGE.getvalue()
IMAGES = {f"{number}.png": PNG for number in range(4)}
INDICES = {f"{number}.cls": str(number % 2).encode() for number in range(4)}
EXPECTED = "0,1: train 1/1 val 1/1"


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (INDICES, EXPECTED),
        ({f"{i}.cls": b"cat" if i % 2 else b"dog\n" for i in range(4)}, "cat,dog: train 1/1 val 1/1"),
        ({f"{i}.json": b'{"width": 8, "label": %d}' % (i % 2) for i in range(4)}, EXPECTED),
        ({f"{i}.json": b'{"class_name": "c%d", "label": 7}' % (i % 2) for i in range(4)}, "c0,c1: train 1/1 val 1/1"),
        ({**INDICES, "0.txt": b"a caption", ".cls": b"3"}, EXPECTED),
    ],
)
def test_tars_are_read(tmp_path: Path, labels: dict[str, bytes], expected: str) -> None:
    tar = write_tar(tmp_path / "photos-000.tar", {**IMAGES, **labels})
    assert read(tmp_path, val_share=0.5) == read(tar, val_share=0.5) == expected


def test_splits_and_class_names_are_read(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tar(tmp_path / f"pets-{split}-000001.tar", {**IMAGES, **INDICES})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert read(tmp_path) == "cat,dog: train 2/2 val 2/2"


def test_images_equal_those_of_files_and_are_packed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((9, 7), 60).save(buffer, "PNG")
    write_tar(tmp_path / "train.tar", {f"{i}.png": buffer.getvalue() for i in range(4)} | INDICES)
    source, preprocessing = open_folder(tmp_path, val_share=0.5), Preprocessing.standard(8, 1)
    assert (source.channels, source.typical_size) == (1, 7)
    images = source.load(preprocessing).train
    buffer.seek(0)
    assert images[0].equal(preprocessing.read(buffer))
    assert images.name(0).startswith(f"{tmp_path / 'train.tar'}:")
    shards, _ = write_shards(source, tmp_path / "shards")
    assert open_shards(tmp_path / "shards").class_counts == shards.class_counts == source.class_counts


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (IMAGES, "has images, but no labels; each needs a member of the same name with .cls or .json"),
        ({**IMAGES, **INDICES, "4.png": PNG}, "an image without a label (x.tar:4.png)"),
        ({**IMAGES, **INDICES, "0.jpg": PNG}, "the sample 0 has two images, 0.png and 0.jpg"),
        ({**IMAGES, **INDICES, "0.json": b"{"}, "the label 0.json is not valid json"),
        ({**IMAGES, **INDICES, "0.json": b"[" * 100_000}, "the label 0.json is not valid json"),
        ({**IMAGES, **INDICES, "3.cls": b"2"}, "class 1 has a single image"),
        (INDICES, "holds no labelled image"),
    ],
)
def test_tar_is_rejected_with_reason(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError) as error:
        open_folder(tmp_path)
    assert message in str(error.value)


def test_tar_given_by_path_is_not_unpacked(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {**IMAGES, **INDICES})
    assert DataSpec(tar).open(val_share=0.5).notes == ()


def test_links_and_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "photos-000.tar", {**IMAGES, **INDICES, "9.jxl": b"x"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("8.png")
        link.type, link.linkname = tarfile.LNKTYPE, "0.png"
        tar.addfile(link)
    write_tar(tmp_path / "photos-val.tar", {**IMAGES, **INDICES})
    notes = open_folder(tmp_path).notes
    assert "left out: photos-000.tar:8.png (a link or device in the archive)" in notes
    assert "left out: photos-000.tar:9.jxl (.jxl file that cannot be read; convert it to JPEG or PNG)" in notes
    assert "photos-000.tar is read as training images: its name has no split" in notes
