import importlib.metadata
import json
import shlex
import sys

import pytest

from ghostnets import errors


def test_unknown_name_error_suggests_close_matches():
    error = errors.UnknownNameError("model", "ghostnet_10", ["ghostnet_100", "resnet"])
    assert "did you mean ghostnet_100?" in str(error)
    assert "known are: a, b" in str(errors.UnknownNameError("thing", "zzz", ["b", "a"]))


def test_errors_inherit_builtins():
    for error, builtin in [
        (errors.DataError, ValueError),
        (errors.StorageError, OSError),
        (errors.MissingExtraError, ImportError),
        (errors.UnknownNameError, LookupError),
    ]:
        assert issubclass(error, builtin)
        assert issubclass(error, errors.GhostNetsError)


def test_missing_library_error_names_extra():
    with pytest.raises(errors.MissingExtraError, match=r"needs no_such_library.*pip install .*\[explain\]"):
        errors.require("no_such_library", extra="explain")


def test_require_installed_finds_libraries_without_importing_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    errors.require_installed("json", "this", extra="train")
    assert "this" not in sys.modules
    monkeypatch.setitem(sys.modules, "this", None)  # as if it were not installed
    with pytest.raises(errors.MissingExtraError, match=r"needs this, .*\[train\]"):
        errors.require_installed("this", extra="train")


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'ghostnets[train]'"),
        ({"url": "file:///a%20b/g", "dir_info": {"editable": True}}, "pip install -e '/a b/g[train]'"),
        ({"url": "file:///a/g", "dir_info": {}}, "pip install '/a/g[train]'"),
        (
            {"url": "https://x.org/g.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'ghostnets[train] @ git+https://x.org/g.git@abc'",
        ),
        ({"url": "https://x.org/g.whl", "archive_info": {}}, "pip install 'ghostnets[train] @ https://x.org/g.whl'"),
    ],
)
def test_install_command_fits_the_installation(monkeypatch: pytest.MonkeyPatch, origin: dict | None, command: str):
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert errors.install_command("train") == command
    without_extra = command.removeprefix("pip install ").replace("[train]", "")
    reinstall = errors.reinstall_command().split("--no-binary ghostnets ")[1]
    from_index = origin is not None and origin["url"].endswith(".whl")
    assert shlex.split(reinstall) == (["ghostnets"] if from_index else shlex.split(without_extra))


def test_install_command_of_source_tree_is_editable(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert errors.install_command("train").startswith("pip install -e ")


def test_library_that_fails_on_import_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("raise RuntimeError('operator\\n torchvision::nms is missing')")
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.MissingExtraError, match=r"torchvision.*\(operator torchvision::nms is .*one index"):
        errors.require("torchvision.models", extra="train")
