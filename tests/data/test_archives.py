"""Archives of images: unpacked once, safely; downloaded once, and checked."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path, PureWindowsPath

import pytest
from conftest import serve_folder
from test_labelled_tars import IMAGES, INDICES, PNG, write_tar

from ghostnets.data import DataSpec, archives
from ghostnets.data.archives import open_archive
from ghostnets.errors import DataError

FILES = {f"pets/{name}/{number}.png": PNG for name in ("cat", "dog") for number in range(5)}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tbz2", "tar.xz"])
def test_archive_is_unpacked_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        write_zip(path, FILES)
    else:
        write_tar(tmp_path / "plain", FILES)
        opener = archives.OPENERS.get(f".{suffix.removeprefix('tar.')}", open)
        with opener(path, "wb") as file:
            file.write((tmp_path / "plain").read_bytes())
    source = DataSpec(path).open()
    assert source.class_counts == {"train": (4, 4), "val": (1, 1)}
    assert source.name == "a"
    assert source.notes[0].startswith(f"{path} is read from its copy in")
    folder = open_archive(str(path))
    before = folder.stat()
    assert open_archive(str(path)).stat() == before


def test_table_in_enclosing_folder_of_archive_is_read(tmp_path: Path) -> None:
    rows = "".join(f"{number}.png,{'cat' if number % 2 else 'dog'}\n" for number in range(4))
    images = {f"pets/images/{number}.png": PNG for number in range(4)}
    path = write_zip(tmp_path / "a" / "p.zip", {"pets/labels.csv": f"path,label\n{rows}".encode(), **images})
    source = DataSpec(path).open(val_share=0.5)
    assert source.class_counts == {"train": (1, 1), "val": (1, 1)}
    assert source.notes[1].endswith("the only folder of " + str(open_archive(str(path))))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../x.png": PNG}, "names '../x.png', outside its own folder"),
        ({"/x.png": PNG}, "outside its own folder"),
        ({"c:\\x.png": PNG}, "outside its own folder"),
        ({"a": PNG, "a/b": PNG}, "holds 'a/b' twice"),
        ({"x.png": bytes(100_000)}, "unpacks to 100,000 bytes, the limit"),
        (b"hello", "not a zip file"),
    ],
)
def test_hostile_archive_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes] | bytes, message: str
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1000)
    path = tmp_path / "in" / "x.zip"
    if isinstance(members, bytes):
        path.parent.mkdir()
        path.write_bytes(members)
    else:
        write_zip(path, members)
    with pytest.raises(DataError, match=message):
        open_archive(str(path))
    assert not list(tmp_path.rglob("*.png"))


def test_member_on_another_drive_of_windows_is_rejected() -> None:
    target = PureWindowsPath("C:/cache/x")
    assert archives._member_path(target, "a/./b.png") == target / "a" / "b.png"
    for name in ("D:x.png", "a/D:x.png", "a\\D:x.png", "D:/x.png", "//host/share/x.png", ".", ""):
        with pytest.raises(DataError, match="outside its own folder"):
            archives._member_path(target, name)


def test_links_are_not_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for _ in range(2):  # unpacked, and found in the cache
        notes = DataSpec(tmp_path / "x.tar").open().notes
        assert "left out: a/link.png (a link or device in the archive)" in notes
    assert not list(open_archive(str(tmp_path / "x.tar")).rglob("link.png"))
    path = write_zip(tmp_path / "z" / "y.zip", FILES)
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo("pets/cat/link.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "0.png")
    assert "left out: pets/cat/link.png (a link or device in the archive)" in DataSpec(path).find().notes


def test_compressed_tar_is_bounded_and_must_be_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "plain", {"x.png": bytes(100_000)})
    with archives.OPENERS[".gz"](tmp_path / "x.tar.gz", "wb") as file:
        file.write((tmp_path / "plain").read_bytes())
    content = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "y.tar.gz").write_bytes(content[:-20])
    with pytest.raises(DataError, match="ended before the end-of-stream marker"):
        open_archive(str(tmp_path / "y.tar.gz"))
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        open_archive(str(tmp_path / "x.tar.gz"))


def test_damaged_download_is_downloaded_again(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "www" / "pets.zip", FILES)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with serve_folder(path.parent) as address:
        with pytest.raises(DataError, match="download it again"):
            open_archive(f"{address}pets.zip")
        assert not list((tmp_path / "cache").rglob("*.partial"))
        path.write_bytes(content)
        assert open_archive(f"{address}pets.zip").is_dir()


def test_archive_at_url_is_downloaded_once_and_checked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "www" / "pets.zip", FILES)
    write_tar(tmp_path / "www" / "samples.tar", {**IMAGES, **INDICES})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seen: list[tuple[int, int]] = []
    with serve_folder(path.parent) as address:
        with pytest.raises(DataError, match=r"the SHA-256 of http://.* is .*, expected 0000"):
            DataSpec(f"{address}pets.zip#sha256=0000").open()
        url = f"{address}pets.zip"
        size = path.stat().st_size
        source = DataSpec(f"{url}#sha256={digest}", progress=lambda done, total: seen.append((done, total))).open()
        assert seen[-1] == (size, size)
        with pytest.raises(DataError, match=r"missing\.zip could not be downloaded \(the server responded 404"):
            DataSpec(f"{address}missing.zip").open()
        assert DataSpec(f"{address}samples.tar").open(val_share=0.5).class_counts["train"] == (1, 1)
    assert source.name == "pets"
    assert DataSpec(url).open().identity == source.identity  # without the server
