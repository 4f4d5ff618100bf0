"""The distribution: what it requires, and what it says where something is missing."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
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

COMES_WITH = {
    "pydantic": "fastapi",
    "starlette": "fastapi",
    **dict.fromkeys(("ai_edge_litert", "ai_edge_quantizer"), "litert-torch"),
}


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


def modules_and_extras(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Top-level modules that a file imports, with the extra that it names for those of ``require``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0], None
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("require"):
            extra = [word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)]
            names = [str(value.value) for value in node.args if isinstance(value, ast.Constant)]
            yield from ((name.partition(".")[0], str(extra[0])) for name in names if extra)


def test_extras_contain_what_is_imported():
    installed, missing = packages_distributions(), set()
    known = {
        library
        for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for library in libraries(texts)
    }
    files = Path(ghostnets.__file__).parent.rglob("*.py")
    found = {pair for path in files for pair in modules_and_extras(ast.parse(path.read_text(encoding="utf-8")))}
    assert ("h5py", "import") in found
    for module, extra in found:
        if module in sys.stdlib_module_names or module == "ghostnets":
            continue
        names = {COMES_WITH.get(module, module), *installed.get(module, ())}
        distributions = {name.lower().replace("_", "-") for name in names}
        extras = set().union(*map(extras_with, distributions))
        if not (distributions & known if extra is None else extra in extras):
            missing.add((module, extra))
    assert missing == set()


def test_documented_extras_exist():
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = " ".join(path.read_text(encoding="utf-8") for path in documents)
    found = re.findall(r"(?:ghostnets|[`'\"]\.)\[([a-z,]+)\]", text)
    assert len(found) > 8
    assert {extra for names in found for extra in names.split(",")} <= set(PROJECT["optional-dependencies"])


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


def test_exported_page_has_the_notice_of_its_runtime():
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    page = (ROOT / "ghostnets" / "export" / "web_page" / "THIRD_PARTY_NOTICES.txt").read_text(encoding="utf-8")
    expected = textwrap.dedent(notices.partition("## ONNX Runtime\n\n")[2])
    assert expected.startswith("Copyright (c) Microsoft")
    assert page.endswith(expected)


@pytest.mark.slow
def test_wheel_without_a_compiler_is_for_every_python(tmp_path: Path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, env=os.environ | {"CXX": "/bin/false"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"ghostnets-{ghostnets.__version__}-py3-none-any.whl"]
