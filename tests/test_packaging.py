"""The distribution: what it requires, and what it says where something is missing."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ghostnets
from ghostnets import errors

ROOT = Path(ghostnets.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

WITHOUT_TORCH = """
import sys
class WithoutTorch:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        is_missing = name.partition(".")[0] in ("huggingface_hub", "torch", "torchvision")
        return None if is_missing else self.finder.find_spec(name, path, target)
sys.meta_path = [WithoutTorch(finder) for finder in sys.meta_path]
import ghostnets
from ghostnets.cli.main import main
for use in ("ghostnets.train_model", "ghostnets.create_model", "__import__('ghostnets.layers')"):
    try:
        eval(use)
    except ghostnets.GhostNetsError as error:
        print(f"error: {error}", file=sys.stderr)
assert main(["info", "ghostnet_100"]) == main(["predict", sys.argv[1], sys.argv[2]]) == 1
"""


def libraries(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!;\[ ]", requirement)[0] for requirement in requirements}


def extras_with(library: str) -> set[str]:
    """Extras that install a library, also through other extras."""
    table = PROJECT["optional-dependencies"]
    found: set[str] = set()
    while True:
        more = {
            extra
            for extra, requirements in table.items()
            if library in libraries(requirements)
            or any(found & set(re.findall(r"[\w]+", text.partition("[")[2])) for text in requirements)
        }
        if more == found:
            return found
        found = more


def test_only_extras_need_torch():
    heavy = {library.replace("_", "-") for library in errors.TORCH_LIBRARIES}
    assert not heavy & libraries(PROJECT["dependencies"])
    assert heavy == libraries(PROJECT["optional-dependencies"]["torch"])
    assert set(PROJECT["optional-dependencies"]) - extras_with("torch") == set(errors.EXTRAS_WITHOUT_TORCH)


def test_missing_torch_error_names_the_extra_to_install(tmp_path: Path):
    checkpoint = tmp_path / "net.safetensors"
    checkpoint.touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, checkpoint, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert re.search(rf"needs torch, .* pip install .*\[torch\].* --extra-index-url {errors.CPU_INDEX}", line)


@pytest.mark.parametrize("extra", ["serve", "train"])
def test_cpu_index_is_suggested_only_for_extras_with_torch(extra: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(errors.MissingExtraError) as raised:
        errors.require("no_such_library", extra=extra)
    assert (errors.CPU_INDEX in str(raised.value)) == (extra == "train")
