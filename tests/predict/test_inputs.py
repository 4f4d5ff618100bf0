"""Inputs of the command line: order, shards, and images that cannot be read."""

import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostnets.data import finder
from ghostnets.data.finder import LeftOut
from ghostnets.errors import DataError, ImageError
from ghostnets.predict import find_files, find_inputs, inputs
from ghostnets.predict.inputs import Input, read_input
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing.standard(8, 3)


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(1))
    return root


def names(*arguments: object) -> list[str]:
    return [found.name for found in find_inputs([str(argument) for argument in arguments])]


@pytest.mark.parametrize("at_once", [1, 2, 3, 1000])
def test_folder_is_listed_in_sorted_order(tmp_path: Path, monkeypatch, at_once: int):
    monkeypatch.setattr(finder, "NAMES_AT_ONCE", at_once)
    root = tree(
        tmp_path / "x", "b.png", "a/z.JPG", "a/b/c.png", "a.png", "a/notes.txt", "B.webp", ".a/b.png", "a/.b.png"
    )
    wanted = [path for path in sorted(root.rglob("*")) if path.suffix in (".png", ".JPG", ".webp")]
    wanted = [str(path) for path in wanted if "/." not in str(path)]
    assert names(f"{root}/") == wanted
    assert len(wanted) == 5
    assert find_files([root]) == list(map(Path, wanted))


def test_deep_folder_with_circular_link(tmp_path: Path):
    root = tree(tmp_path / "x", "/".join("d" * 300) + "/a.png")
    (root / "again").symlink_to(root)
    assert len(names(root)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_folder_without_permission_is_an_error_input(tmp_path: Path):
    root = tree(tmp_path / "x", "a/a.png", "b.png")
    (root / "a").chmod(0)
    assert [found.error is None for found in find_inputs([root])] == [False, True]


def test_globs_files_and_lists_keep_order_and_repetitions(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path, "b.png", "a.png", "c/d.png", "[x].png"))
    assert names("b.png", "*.png", "c", "b.png") == ["b.png", "[x].png", "a.png", "b.png", "c/d.png", "b.png"]
    assert names("**/*.png")[-1] == "c/d.png"
    assert names("[x].png") == ["[x].png"]  # a file of that name before any glob
    Path("list").write_text("a.png\r\n\nno such.png\nc/d.png")
    assert names("@list") == ["a.png", "no such.png", "c/d.png"]
    with pytest.raises(ImageError, match="there is no image no such"):
        read_input(list(find_inputs(["@list"]))[1], PREPROCESSING)


def test_glob_of_any_depth_ends_with_loops_of_links(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path, "a.png", "b/c.png", "b/d/e.png", ".hidden/x.png", "[f]/g.png", "outside.txt"))
    for name in ("self", "again", "b/up"):
        Path(name).symlink_to(tmp_path, target_is_directory=True)
    left_out = LeftOut()
    found = [one.name for one in find_inputs(["**/*.png"], left_out=left_out)]
    assert found == ["a.png", "[f]/g.png", "b/c.png", "b/d/e.png"]
    assert "link into a folder that is read anyway, the first of 3" in left_out.sentences()[0]
    assert names("**") == ["./[f]/g.png", "./a.png", "./b/c.png", "./b/d/e.png"]
    assert names("b/**") == names("b/**/") == ["b/c.png", "b/d/e.png"]
    assert names("**/d/**/*.png") == ["b/d/e.png"]
    assert names(f"{tmp_path}/**/c.p*") == [f"{tmp_path}/b/c.png"]


def test_missing_input_fails_early(tmp_path: Path):
    tree(tmp_path, "a.png", "empty/notes.txt")
    (tmp_path / "list").write_text("\n")
    make_tar(tmp_path / "e.tar", {"a.cls": b"1"})
    for argument, sentence in {
        "no.png": "there is no image or folder",
        "@no": "there is no image or folder",
        "no*.png": "nothing matches",
        "empty": "holds no image",
        "@list": "holds no path",
        "e.tar": "holds no image",
    }.items():
        place = f"@{tmp_path / argument[1:]}" if argument.startswith("@") else tmp_path / argument
        with pytest.raises(DataError, match=sentence):
            find_inputs([tmp_path / "a.png", place])


def test_shard_members_are_read(tmp_path: Path):
    content = {f"{key}.{kind}": picture(key) if kind == "png" else b"7" for key in range(30) for kind in ("png", "cls")}
    shard = make_tar(tmp_path / "s.tar", {"./": b"", "folder/last.png": picture(99), **content})
    found = list(find_inputs([shard]))
    assert [one.name for one in found] == [f"{shard}/folder/last.png", *(f"{shard}/{key}.png" for key in range(30))]
    assert [read_input(one, PREPROCESSING)[0, 0, 0] for one in found] == [99, *range(30)]
    assert len(names(tmp_path / "*.tar", shard)) == 62


def test_shard_of_gnu_tar(tmp_path: Path):
    """GNU tar, with names longer than a header holds."""
    folder = tree(tmp_path / "x", "n" * 120 + "/" + "m" * 130 + ".png", "a.png")
    assert os.system(f"tar -C {folder} -cf {tmp_path}/s.tar .") == 0
    assert sorted(read_input(one, PREPROCESSING).shape for one in find_inputs([tmp_path / "s.tar"])) == [(8, 8, 3)] * 2


def test_damaged_shard_ends_with_error_input(tmp_path: Path):
    shard = make_tar(tmp_path / "s.tar", {f"{key}.png": picture(key) for key in range(5)})
    whole = shard.read_bytes()
    size = len(whole.rstrip(b"\0"))
    third = 2 * 1024  # a header and a block for each
    for length in (0, 100, 512, third, third + 100, third + 530, size + 100):
        shard.write_bytes(whole[:length])
        found = list(find_inputs([shard]))
        assert found[-1].error is not None, length
        assert "truncated" in found[-1].error
        assert len(found) == 1 + length // 1024 if length < size else 6
    shard.write_bytes(whole[:third] + b"x" * 512 + whole[third + 512 :])
    assert [found.error is None for found in find_inputs([shard])] == [True, True, False]
    shard.write_bytes(np.random.default_rng(0).bytes(20_000))
    assert [found.error is None for found in find_inputs([shard])] == [False]


def test_hostile_shard_members_are_rejected(tmp_path: Path, monkeypatch):
    (tmp_path / "secret.png").write_bytes(picture(5))
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            link = tarfile.TarInfo("l.png")
            link.type, link.linkname = kind, str(tmp_path / "secret.png")
            archive.addfile(link)
        archive.add(tmp_path / "secret.png", "../../up.png")
    left_out = LeftOut()
    (found,) = find_inputs([tmp_path / "s.tar"], left_out=left_out)
    assert left_out.sentences() == [
        f"left out: {tmp_path}/s.tar/l.png (a link or device in the archive, the first of 3)"
    ]
    assert read_input(found, PREPROCESSING).shape == (8, 8, 3)  # read from the shard, and written nowhere
    monkeypatch.setattr(inputs, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(ImageError, match="the limit for an image in a shard"):
        read_input(found, PREPROCESSING)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_not_utf8(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(1))
    (found,) = find_inputs([tmp_path])
    assert found.name.endswith("caf\\xe9.png")
    assert read_input(found, PREPROCESSING).shape == (8, 8, 3)


def test_input_with_error_is_not_read():
    with pytest.raises(ImageError, match="lost"):
        read_input(Input("a", "a", error="lost"), PREPROCESSING)
