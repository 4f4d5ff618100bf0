"""Command lines of the documents are parsed by the options of their commands."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import ghostnets
from ghostnets.cli.main import COMMANDS, MODULES

ROOT = Path(ghostnets.__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "ghostnets").rglob("README.md")),
]
BLOCK_LINE = re.compile(r"^ +(?:torchrun .* -m )?(ghostnets .*)$", flags=re.MULTILINE)
INLINE = re.compile(r"`(ghostnets\s[^`]+)`")


def find_commands(text: str) -> list[str]:
    """Command lines in a Markdown text: lines of blocks, and those within sentences that have arguments."""
    inline = [" ".join(command.split()) for command in INLINE.findall(text)]
    return BLOCK_LINE.findall(text.replace("\\\n", " ")) + [line for line in inline if len(line.split()) > 2]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documented_command_lines_are_valid(document: Path):
    for line in find_commands(document.read_text(encoding="utf-8")):
        _, command, *arguments = shlex.split(line, comments=True)
        assert command in COMMANDS, line
        options = import_module(f"ghostnets.cli.options.{MODULES.get(command, command)}")
        try:
            getattr(options, f"{command.title()}Command").parse([word for word in arguments if word != "..."])
        except SystemExit:
            pytest.fail(f"{document.name}: {line}")


def test_find_commands_finds_blocks_continued_lines_and_sentences():
    text = "Run `ghostnets\nlist --json`, not `ghostnets list`.\n\n    ghostnets info x  # cost\n"
    text += "    torchrun --standalone \\\n        -m ghostnets train\n"
    assert find_commands(text) == ["ghostnets info x  # cost", "ghostnets train", "ghostnets list --json"]
