"""Structure of the package: allowed imports (docs/architecture.md), the cost of importing, sizes, and unique names."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import ghostnets

ROOT = Path(ghostnets.__file__).parent
NATIVE = ROOT.parent / "csrc"
DOCUMENT = ROOT.parent / "docs" / "architecture.md"

MAX_FUNCTION_LINES = 60  # Python without the docstring, and C++
MAX_FILE_LINES = 350
# Split, it rounds the last lanes of AVX-512 differently: the compiler then fuses other multiplications and additions.
LONG_NATIVE_FUNCTIONS = {
    "void branch_gradient_as(const Branches<T>& op, T* partials) {",
    "parallel(op.threads, [&](int share) {",
}


def python_files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def allowed_imports() -> dict[str, set[str]]:
    """The table of docs/architecture.md: package -> packages that it may import."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {package: set(re.findall(r"`(\w+)`", imports)) for package, imports in rows}


def packages() -> set[str]:
    """Packages and modules directly below ghostnets."""
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    return folders | {p.stem for p in ROOT.glob("*.py") if not p.stem.startswith("__")}


def documented_files() -> set[Path]:
    """Files and folders that the tree of docs/architecture.md names; a name without suffix may be a Python file."""
    tree = re.search(
        r"^```text\n(ghostnets/\n.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert tree, f"{DOCUMENT}: no tree that begins with ghostnets/"
    files, parents = set(), []
    for line in tree[1].splitlines():
        names = re.split(r" {2,}", line.strip())[0].split(", ")
        parents[(len(line) - len(line.lstrip())) // 2 :] = [names[0]]
        paths = [ROOT.parent.joinpath(*parents[:-1], name) for name in names]
        files |= {path if path.exists() else path.with_suffix(".py") for path in paths}
    return files


def imported_packages(path: Path) -> set[str]:
    """Packages of ghostnets that a file imports, at module level or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{alias.name}" if node.module == "ghostnets" else node.module or ""
                for alias in node.names
            ]
        found |= {name.split(".")[1] for name in names if name.startswith("ghostnets.")}
    return found - {"__version__"}


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines, without the docstring, of each function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            docstring = first.end_lineno - first.lineno + 1 if first else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def native_functions(path: Path) -> Iterator[tuple[str, int]]:
    """First line and number of lines of each function of a C++ file that clang-format has formatted.

    A body begins at a line with a parenthesis and a brace at its end that is not a control statement, and ends at the
    next closing brace of the same indentation.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    statement = re.compile(r"\s*(\} )?(if|else|for|while|switch|do|try|catch|namespace|struct|class|enum|union)\b")
    for start, line in enumerate(lines):
        if not line.endswith("{") or "(" not in line or statement.match(line):
            continue
        indentation = line[: len(line) - len(line.lstrip())]
        end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith(f"{indentation}}}")), None)
        if end is not None:
            yield line.strip(), end - start + 1


def test_documented_tree_matches_files():
    assert {file for file in documented_files() if not file.exists()} == set()
    expected = {file for file in python_files() if not file.stem.startswith("__")}
    for folder in ("benchmarks", "scripts"):
        expected |= {file for file in (ROOT.parent / folder).iterdir() if file.is_file()}
    assert expected - documented_files() == set()


def test_import_table_lists_every_package():
    assert set(allowed_imports()) == packages()


@pytest.mark.parametrize("package", sorted(packages()))
def test_package_imports_only_what_table_allows(package: str):
    module = ROOT / f"{package}.py"
    for file in [module] if module.exists() else sorted((ROOT / package).rglob("*.py")):
        assert imported_packages(file) - {package} <= allowed_imports()[package], file


def test_import_table_has_no_cycle():
    table = {package: set(others) for package, others in allowed_imports().items()}
    while table:
        leaves = {package for package, others in table.items() if not others & table.keys()}
        assert leaves, f"import cycle among {sorted(table)}"
        for package in leaves:
            del table[package]


def test_class_names_are_unique():
    modules = defaultdict(set)
    for file in python_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                modules[node.name].add(str(file.relative_to(ROOT)))
    assert {name: sorted(files) for name, files in modules.items() if len(files) > 1} == {}


def test_functions_are_short():
    long = {
        f"{file.relative_to(ROOT.parent).as_posix()}: {name}"
        for file in python_files()
        for name, lines in python_functions(file)
        if lines > MAX_FUNCTION_LINES
    }
    assert long == set()


def test_native_functions_are_short():
    files = sorted([*NATIVE.rglob("*.cpp"), *NATIVE.rglob("*.hpp")])
    functions = [(file.name, name, lines) for file in files for name, lines in native_functions(file)]
    assert len(functions) > 100  # the pattern finds them
    long = {(file, name) for file, name, lines in functions if lines > MAX_FUNCTION_LINES}
    assert long == {("branches.hpp", name) for name in LONG_NATIVE_FUNCTIONS}


def test_files_are_short():
    suffixes = ("*.py", "*.js", "*.css", "*.jinja", "*.html")
    files = [file for suffix in suffixes for file in ROOT.rglob(suffix)]
    files += [file for suffix in ("*.cpp", "*.hpp") for file in NATIVE.rglob(suffix)]
    lengths = {str(file.relative_to(ROOT.parent)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: length for file, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_public_names_resolve():
    assert ghostnets.__all__ == sorted(ghostnets.__all__)
    for name in ghostnets.__all__:
        assert callable(getattr(ghostnets, name)), name  # and not a subpackage of the same name
    with pytest.raises(AttributeError, match="module 'ghostnets' has no attribute 'nothing'"):
        _ = ghostnets.nothing


def test_lazy_names_match_public_names():
    """A package whose names are imported lazily lists each of them in ``__all__`` and can import it."""
    for package in ("data", "export", "models", "predict", "preprocessing", "train"):
        module = __import__(f"ghostnets.{package}", fromlist=["*"])
        assert set(module._MODULES) <= set(module.__all__), package
        for name in module.__all__:
            getattr(module, name)


def test_import_and_help_do_not_load_torch():
    code = "import sys, ghostnets.cli.main as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_torchvision_is_imported_only_inside_functions():
    """It takes as long to load as torch, and most commands do not need it."""
    for file in python_files():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] == "torchvision" for name in names), file


def test_tests_mirror_package():
    for file in python_files():
        relative = file.relative_to(ROOT)
        if file.stem.startswith("__") or relative.parent == Path():
            continue
        assert (ROOT.parent / "tests" / relative.parent).is_dir(), relative
