"""Documents: every link leads somewhere, every dotted name of the package exists, every public name is described."""

import functools
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import ghostnets

ROOT = Path(ghostnets.__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("ghostnets/**/*.md")])
CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def links(document: Path) -> list[str]:
    text = CODE.sub("", document.read_text(encoding="utf-8"))
    found = [first or second for first, second in LINK.findall(text)]
    return [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]


@functools.cache
def anchors(document: Path) -> set[str]:
    """Return the anchors that a forge gives the headings of a document."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path):
    broken = []
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_links_are_found():
    assert len([link for document in DOCUMENTS for link in links(document)]) > 50
    assert "allowed-imports" in anchors(ROOT / "docs" / "architecture.md")


def resolve(name: str) -> None:
    """Import a dotted name: modules as far as they go, then attributes."""
    parts = name.split(".")
    value = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], 2):
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(".".join(parts[:index]))


def test_dotted_names_exist():
    """Only the documents for users: the log names what was there once."""
    missing, found = set(), set()
    for document in DOCUMENTS:
        if document.name in ("log.md", "CHANGELOG.md"):
            continue
        for name in re.findall(r"\bghostnets(?:\.[A-Za-z_]\w*)+", document.read_text(encoding="utf-8")):
            found.add(name)
            try:
                resolve(name)
            except (ImportError, AttributeError):
                missing.add((document.name, name))
    assert len(found) > 20
    assert missing == set()


def test_every_document_is_on_the_site():
    """``scripts/build_docs.py`` names each document in its order of pages."""
    script = (ROOT / "scripts" / "build_docs.py").read_text(encoding="utf-8")
    names = [document.relative_to(ROOT).with_suffix("").as_posix() for document in ROOT.glob("docs/*.md")]
    assert [name for name in names if f'"{name}"' not in script] == []


def test_every_public_name_is_in_the_reference():
    """The site's reference shows names with a docstring, and constants with a text below their assignment."""
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "scripts" / "build_docs.py")
    build_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_docs)
    missing, constants = [], {}
    for module in build_docs.public_modules():
        described = build_docs.describe_constants(module)
        constants |= {f"{module}.{name}": text for name, text in described.items()}
        public = importlib.import_module(module)
        names = [name for name in public.__all__ if name not in described]
        missing += [f"{module}.{name}" for name in names if not getattr(public, name).__doc__]
    assert missing + [name for name, text in constants.items() if not text] == []
    assert constants["ghostnets.data.TASKS"].startswith("Tasks of data sets")
    assert constants["ghostnets.train.RECIPES"] == "Named recipes."
