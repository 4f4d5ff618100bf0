import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ghostnets import locks
from ghostnets.errors import StorageError
from ghostnets.files import (
    check_writable,
    complete_interrupted,
    find_checkpoint,
    write_atomically,
    write_folder,
    write_text,
    write_together,
)
from ghostnets.locks import try_lock


def test_write_text_replaces_file(tmp_path: Path):
    target = tmp_path / "new" / "file.txt"
    write_text(target, "one")
    write_text(target, "two")
    assert target.read_text() == "two"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_write_atomically_keeps_old_file_on_error(tmp_path: Path):
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def write_half() -> None:
        with write_atomically(target) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_raises_storage_error_and_keeps_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match=r"could not write .*file\.txt \(No space left on device\)"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_file_in_place_of_folder_raises(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        write_text(tmp_path / "file" / "below", "text")


def test_written_files_and_folders_have_default_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without reading the umask, which sets that of all threads: two of them could leave it at 0."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        write_text(tmp_path / "file", "x")
        with write_folder(tmp_path / "folder") as folder:
            (folder / "inside").write_text("x")
    finally:
        monkeypatch.undo()
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"file": 0o640, "folder": 0o750, "inside": 0o640}


def write_pair(folder: Path, text: str) -> None:
    for name in ("net.xml", "net.bin"):
        (folder / name).write_text(f"{text} {name}")


def test_write_together_replaces_all_files(tmp_path: Path):
    for text in ("old", "new"):
        with write_together(tmp_path / "out" / "net.xml") as folder:
            write_pair(folder, text)
    assert {p.name: p.read_text() for p in (tmp_path / "out").iterdir()} == {
        "net.xml": "new net.xml",
        "net.bin": "new net.bin",
    }


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_write_together_interrupted_leaves_old_files_or_completes_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
):
    """The renames: the folder to complete, net.bin, net.xml."""
    write_pair(tmp_path, "old")
    moved = []
    replace = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if len(moved) == fails_at:
            raise KeyboardInterrupt
        moved.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt), write_together(tmp_path / "net.xml") as folder:
        write_pair(folder, "new")
    assert moved == [".net.xml.complete", "net.bin"][:fails_at]
    assert (tmp_path / "net.xml").exists() == (fails_at == 0)  # never net.xml beside another version of net.bin
    monkeypatch.undo()
    complete_interrupted(tmp_path / "net.xml")
    text = "new" if fails_at else "old"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "net.xml": f"{text} net.xml",
        "net.bin": f"{text} net.bin",
    }


def test_write_together_keeps_old_files_on_error(tmp_path: Path):
    write_pair(tmp_path, "old")

    def write_half() -> None:
        with write_together(tmp_path / "net.xml") as folder:
            (folder / "net.bin").write_text("new")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"could not write .*net\.xml \(No space left on device\)"):
        write_half()
    assert sorted(p.read_text() for p in tmp_path.iterdir()) == ["old net.bin", "old net.xml"]


def test_writers_remove_leftovers_of_killed_ones(tmp_path: Path):
    (tmp_path / ".file.txt.abcd1234.partial").write_text("half")
    (tmp_path / ".file.txt.gz.abcd1234.partial").write_text("half of another file")
    write_text(tmp_path / "file.txt", "new")
    (tmp_path / ".net.xml.partial").mkdir()
    (tmp_path / ".net.xml.partial" / "half").touch()
    with write_together(tmp_path / "net.xml") as folder:
        write_pair(folder, "new")
    (tmp_path / ".web.partial" / "half").mkdir(parents=True)
    with write_folder(tmp_path / "web") as folder:
        (folder / "page").touch()
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert names == [".file.txt.gz.abcd1234.partial", "file.txt", "net.bin", "net.xml", "web", "web/page"]


def test_writers_keep_the_files_of_others_in_progress(tmp_path: Path):
    with write_atomically(tmp_path / "file.txt") as first:
        write_text(tmp_path / "file.txt", "second")
        first.write_text("first")
    assert (tmp_path / "file.txt").read_text() == "first"
    with write_together(tmp_path / "net.xml") as folder:
        write_pair(folder, "first")
        with (
            pytest.raises(StorageError, match=r"another process is writing .*net\.xml"),
            write_together(tmp_path / "net.xml"),
        ):
            pass
    assert (tmp_path / "net.xml").read_text() == "first net.xml"


def test_failed_write_leaves_no_new_folder(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), write_together(tmp_path / "a" / "b" / "net.xml"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_write_folder_interrupted_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
):
    """The renames: the new folder to complete, the old one to older, the new one to its name."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "old").touch()
    renamed = []
    replace = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if len(renamed) == fails_at:
            raise KeyboardInterrupt
        renamed.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt), write_folder(tmp_path / "web") as folder:
        (folder / "new").touch()
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError), write_folder(tmp_path / "web"):
        raise ZeroDivisionError
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert names == (["web", "web/old"] if fails_at == 0 else ["web", "web/new"])


WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
import warnings
warnings.simplefilter("ignore")
from pathlib import Path
from ghostnets.files import remove_leftovers, write_text
from ghostnets.locks import try_lock

folder = Path(sys.argv[1])
write_text(folder / "a", "one")
lock = try_lock(folder)
assert lock.is_on(folder) and not lock.is_on(folder / "a")
assert try_lock(folder) is None
lock.release()
again = try_lock(folder)
again.release()
(folder / ".b.x.partial").write_text("")
remove_leftovers(folder)
assert [path.name for path in folder.iterdir()] == ["a"], list(folder.iterdir())
assert (folder / "a").read_text() == "one"
"""


def test_files_are_written_and_locked_where_fcntl_is_absent(tmp_path: Path):
    (tmp_path / "x").mkdir()
    command = [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    package = Path(locks.__file__).parent
    importing = [file.name for file in package.rglob("*.py") if "import fcntl" in file.read_text(encoding="utf-8")]
    assert importing == ["locks.py"]


def test_lock_excludes_others_until_released_and_notices_a_replaced_folder(tmp_path: Path):
    folder = tmp_path / "x"
    folder.mkdir()
    lock = try_lock(folder)
    assert lock is not None
    assert try_lock(folder) is None
    folder.rename(tmp_path / "y")
    assert not lock.is_on(folder)
    folder.mkdir()
    assert not lock.is_on(folder)
    assert lock.is_on(tmp_path / "y")
    lock.release()
    lock.release()
    again = try_lock(tmp_path / "y")
    assert again is not None
    again.release()


def test_folder_of_a_run_stands_for_its_checkpoint(tmp_path: Path):
    run, best = tmp_path / "run", tmp_path / "run" / "best.safetensors"
    run.mkdir()
    assert find_checkpoint(run) == run  # any folder
    (run / "config.json").touch()
    assert find_checkpoint(str(run)) == best  # a run without a checkpoint yet: the error names the file
    best.touch()
    assert find_checkpoint(run) == best
    assert find_checkpoint(best) == best
    assert find_checkpoint(tmp_path / "nowhere") == tmp_path / "nowhere"


def test_check_writable_leaves_everything_as_it_was(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    check_writable(tmp_path / "new" / "folder" / "file")
    check_writable(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(StorageError, match="could not write"):
        check_writable(tmp_path / "file" / "inside")
