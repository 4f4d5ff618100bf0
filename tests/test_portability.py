"""Systems that lack what Linux has: macOS has no processor affinity, Windows neither that nor pread, SIGHUP, ..."""

import ast
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from conftest import make_images

from ghostnets import cores, files
from ghostnets.data import finder, open_folder, write_shards
from ghostnets.predict import box_pictures

NO_WINDOWS = {
    "os": "fork forkpty register_at_fork getuid geteuid getgid getegid statvfs sched_getaffinity sysconf pread pwrite "
    "preadv pwritev mkfifo mknod nice getloadavg uname killpg setsid getpgid sendfile fchmod fchown chown "
    "lchown wait wait3 wait4 waitid fdatasync sync lockf WNOHANG O_NONBLOCK O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_SYNC",
    "signal": "SIGHUP SIGKILL SIGPIPE SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGQUIT alarm setitimer pthread_kill sigwait",
    "socket": "AF_UNIX SO_REUSEPORT",
}
UNIX_ONLY = {module: names.split() for module, names in NO_WINDOWS.items()}
UNIX_MODULES = ["fcntl", "grp", "pwd", "resource", "syslog", "termios", "uvloop"]
PACKAGE = Path(cores.__file__).parent

WITHOUT = f"""
import os
os.supports_dir_fd.clear()  # before shutil is imported, which reads it
import errno, importlib, pkgutil, signal, sys
for name in {UNIX_MODULES}:
    sys.modules[name] = None
import torch, torchvision  # they use some of these
for module, names in [(os, {UNIX_ONLY["os"]}), (signal, {UNIX_ONLY["signal"]})]:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
open_file = os.open
def open_no_folder(path, *arguments, **options):
    if os.path.isdir(path) and not options:  # shutil.rmtree opens folders where it can
        raise PermissionError(errno.EACCES, "Permission denied", path)
    return open_file(path, *arguments, **options)
os.open = open_no_folder

import ghostnets
from ghostnets.errors import MissingExtraError
for module in pkgutil.walk_packages(ghostnets.__path__, "ghostnets."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except MissingExtraError:
            pass
from ghostnets.artefacts import load_classifier
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.files import write_folder, write_together
from ghostnets.locks import try_lock
from ghostnets.predict import find_inputs, predict_images
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.stop import catch_stop_signals
from pathlib import Path
for write in (write_folder, write_together):
    for text in ("old", "new"):
        with write("folder" if write is write_folder else "file") as temporary:
            (temporary / "file").write_text(text)
assert Path("folder/file").read_text() == Path("file").read_text() == "new"
lock = try_lock(Path("folder"))
assert try_lock(Path("folder")) is None
lock.release()
assert sorted(os.listdir()) == ["file", "folder", "shards"]
with catch_stop_signals() as stop:
    signal.raise_signal(signal.SIGTERM)
assert stop.signal == signal.SIGTERM
model = ghostnets.create_model("ghost_resnet20", num_classes=2)
preprocessing = Preprocessing.standard(8, 3)
arguments = {{"num_classes": 2}}
checkpoint = Checkpoint("ghost_resnet20", arguments, model.state_dict(), ("dark", "light"), preprocessing)
save_checkpoint("net.safetensors", checkpoint)
classifier = load_classifier("net.safetensors")
assert sum(map(len, predict_images(classifier, find_inputs(["shards"]), top=1))) == 20
"""


def test_package_works_without_posix_only_functions(tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"dark": 10, "light": 10}, size=(8, 8))
    write_shards(open_folder(photos), tmp_path / "work" / "shards", images_per_shard=7)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_names_that_windows_lacks_are_used_only_where_they_are_looked_for():
    found = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module, name = node.value.id, node.attr
                if name in UNIX_ONLY.get(module, []) and f'hasattr({module}, "{name}")' not in text:
                    found.append(f"{path}:{node.lineno}: {module}.{name}")
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name in UNIX_MODULES]
                found += [f"{path}:{node.lineno}: {name}" for name in names if f"    import {name}" not in text]
    assert not found


def test_names_and_links_on_windows(monkeypatch: pytest.MonkeyPatch):
    for module, name in ((finder, "Path"), (finder, "PurePath"), (box_pictures, "Path")):
        monkeypatch.setattr(module, name, PureWindowsPath)
    for target, is_read in {
        "C:\\data": True,
        "C:\\data\\cat": True,
        "C:\\": True,
        "C:\\data\\.hidden": False,
        "C:\\data2": False,
        "D:\\data": False,
    }.items():
        assert finder._is_read_anyway(target, "C:\\data") == is_read
    folder = PureWindowsPath("C:/out")
    for name in ("a.tar/D:x.jpg", "a.tar/b/D:/x.jpg", "D:/a.tar/x.jpg"):
        assert box_pictures.target_path(folder, name, ".jpg").is_relative_to(folder)
    monkeypatch.setattr(os.path, "relpath", lambda path, start: "cat\\small\\1.png")
    assert finder.relative_name("C:\\data\\cat\\small\\1.png", "C:\\data") == "cat/small/1.png"


def test_files_are_flushed_by_a_handle_that_windows_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = tmp_path / "file"
    written.write_text("content")
    flushed = []
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.write(handle, b"c")))  # an error if only readable
    files._flush_to_disk(written)
    files._flush_to_disk(tmp_path)
    monkeypatch.undo()
    assert flushed == [1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_usable_cores_are_limited_by_the_container(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cores.usable_cores() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert cores.usable_cores() == min(expected, 4)
