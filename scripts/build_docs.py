"""Build the documentation as a site: documents, API reference from docstrings, command reference from ``--help``.

    python scripts/build_docs.py [FOLDER]     FOLDER/index.html, by default build/site; searchable without a server

Needs the extras docs, bench, serve and train. The documents stay where they are: a copy of them in a temporary folder,
with the same relative links, gets the generated pages and the order below, and Sphinx builds it. Then all links between
the built pages are followed; if one is broken, or a page loads anything from elsewhere, an older site is kept, and the
exit status is 1.
"""

import argparse
import ast
import functools
import importlib
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import ghostnets
from ghostnets.cli.main import COMMANDS
from ghostnets.files import write_folder

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
SECTIONS = {
    "Use": [
        "README",
        "docs/install",
        "docs/library",
        "docs/checkpoints",
        "docs/images",
        "docs/predict",
        "docs/serve",
        "docs/page",
    ],
    "Train": [
        "docs/training",
        "docs/training_speed",
        "docs/detection",
        "docs/detect_fish",
        "docs/count_cells",
        "docs/segmentation",
        "docs/segment_aerial",
    ],
    "Compress and deploy": ["docs/compress", "docs/export", "docs/engine"],
    "Understand": ["docs/ghostnet", "docs/understanding", "docs/models", "docs/results"],
    "Reference": ["commands", "api/index"],
    "Develop": ["CONTRIBUTING", "docs/architecture", "docs/log", "CHANGELOG", "SECURITY"],
}
CONFIGURATION = """
project, author, release = "ghostnets", "ghostnets developers", {version!r}
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme, html_title = "furo", "ghostnets {version}"
myst_heading_anchors = 4
autodoc_typehints, autodoc_member_order, napoleon_use_ivar = "signature", "bysource", True
suppress_warnings = ["myst", "ref.python"]  # tests/test_docs.py checks the links
"""


def public_modules() -> list[str]:
    """Return the packages and modules whose names users import, in the order of their names."""
    folder = Path(ghostnets.__file__).parent
    files = [*folder.rglob("__init__.py"), folder / "errors.py"]
    names = [".".join(("ghostnets", *file.relative_to(folder).with_suffix("").parts)) for file in files]
    modules = {name.removesuffix(".__init__") for name in names if ".cli" not in name and ".sources" not in name}
    return sorted(name for name in modules if getattr(importlib.import_module(name), "__all__", ()))


def import_lazy_names(modules: list[str]) -> None:
    """Import the names that packages import on first access, in this process, where autodoc looks for them."""
    for name in modules:
        module = importlib.import_module(name)
        vars(module).update({public: getattr(module, public) for public in module.__all__})


@functools.cache
def assigned_texts() -> dict[str, dict[Path, str]]:
    """Texts below assignments of all modules, by the assigned name, then by file."""
    found: dict[str, dict[Path, str]] = {}
    for file in sorted(Path(ghostnets.__file__).parent.rglob("*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        for node, following in itertools.pairwise(body):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                for target in targets:
                    if isinstance(target, ast.Name):
                        found.setdefault(target.id, {})[file] = str(following.value.value)
    return found


def describe_constants(name: str) -> dict[str, str]:
    """Return the public constants and types of a package with their texts, which autodoc misses if they are imported.

    The text is empty if there is none below the assignment; a module of the package comes before other modules.
    """
    module = importlib.import_module(name)
    values = {public: getattr(module, public) for public in module.__all__}
    others = [public for public, value in values.items() if not (inspect.isclass(value) or inspect.isroutine(value))]
    folder = Path(module.__file__ or "").parent
    texts = {public: assigned_texts().get(public, {}) for public in others if not inspect.ismodule(values[public])}
    return {
        public: next((found[file] for file in sorted(found, key=lambda file: not file.is_relative_to(folder))), "")
        for public, found in texts.items()
    }


def list_top_level_names(packages: list[str]) -> str:
    """Return the page of ``ghostnets``: its names with their summaries and links to the packages that describe them."""
    lines = ["ghostnets", "=========", "", ".. automodule:: ghostnets", ""]
    for name in ghostnets.__all__:
        value = getattr(ghostnets, name)
        owner = next(package for package in packages if getattr(importlib.import_module(package), name, None) is value)
        summary = (inspect.getdoc(value) or "").partition("\n\n")[0]
        lines.append(f"* :py:obj:`ghostnets.{name} <{owner}.{name}>`: {' '.join(summary.split())}")
    return "\n".join([*lines, ""])


def write_api(folder: Path) -> None:
    folder.mkdir()
    modules = public_modules()
    import_lazy_names(modules)
    packages = [name for name in modules if name != "ghostnets"]
    (folder / "ghostnets.rst").write_text(list_top_level_names(packages), encoding="utf-8")
    for name in packages:
        text = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n"
        for constant, described in describe_constants(name).items():
            text += f"\n.. py:data:: {name}.{constant}\n\n   {' '.join(described.split())}\n"
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    tree = "\n".join(f"   {name}" for name in modules)
    text = f"API\n===\n\nPublic names by package.\n\n.. toctree::\n   :maxdepth: 1\n\n{tree}\n"
    (folder / "index.rst").write_text(text, encoding="utf-8")


def write_commands(path: Path) -> None:
    pages = ["# Commands\n"]
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    for name in ("", *COMMANDS):
        command = [sys.executable, "-m", "ghostnets", *name.split(), "--help"]
        text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        pages.append(f"## ghostnets {name}\n\n```text\n{text.strip()}\n```\n")
    path.write_text("\n".join(pages), encoding="utf-8")


def copy_documents(source: Path) -> None:
    """Copy the documents and the files that they link to."""
    pending = [f"{page}.md" for pages in SECTIONS.values() for page in pages if (ROOT / f"{page}.md").exists()]
    copied: set[str] = set()
    while pending:
        name = pending.pop()
        if name in copied or not (ROOT / name).is_file() or not (ROOT / name).is_relative_to(ROOT):
            continue
        copied.add(name)
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        if name.endswith(".md"):
            links = LINK.findall(target.read_text(encoding="utf-8"))
            pending += [os.path.relpath((ROOT / name).parent / link, ROOT) for link in links]
    others = sorted(name.removesuffix(".md") for name in copied if name.endswith(".md"))
    SECTIONS["More"] = [name for name in others if not any(name in pages for pages in SECTIONS.values())]


def write_index(path: Path) -> None:
    trees = [
        f".. toctree::\n   :caption: {caption}\n   :maxdepth: 1\n\n" + "".join(f"   {page}\n" for page in pages)
        for caption, pages in SECTIONS.items()
        if pages
    ]
    path.write_text("ghostnets\n=========\n\n" + "\n".join(trees), encoding="utf-8")


class Page(HTMLParser):
    """The anchors and links of a page, and what it loads."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                (self.links if tag == "a" else self.loaded).add(value)


def find_broken_links(site: Path) -> list[str]:
    """Follow the links between the pages of a site; what a page loads must be part of the site."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links | page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                is_right = parts.scheme == "data" or link not in page.loaded
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                is_anchor = bool(parts.fragment) and target in pages
                is_right = target.exists() and (not is_anchor or unquote(parts.fragment) in pages[target].anchors)
            if not is_right:
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "site")
    site: Path = parser.parse_args().folder
    if site.exists() and not (site / ".buildinfo").exists():
        sys.exit(f"{site} exists and is no site of Sphinx, which would be replaced; name another folder.")
    with tempfile.TemporaryDirectory() as name, write_folder(site) as folder:
        source = Path(name) / "source"
        source.mkdir()
        (source / "conf.py").write_text(CONFIGURATION.format(version=ghostnets.__version__), encoding="utf-8")
        copy_documents(source)
        write_commands(source / "commands.md")
        write_api(source / "api")
        write_index(source / "index.rst")
        build = importlib.import_module("sphinx.cmd.build").build_main
        status = int(build(["-q", "-b", "html", "-d", f"{name}/doctrees", str(source), str(folder)]))
        broken = find_broken_links(folder)
        if status or broken:
            sys.exit("\n".join([*(f"broken link in {link}" for link in broken), f"{site} was not written."]))


if __name__ == "__main__":
    main()
