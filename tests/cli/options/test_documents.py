"""Command lines of the documents are parsed by the options of their commands; other blocks say what they are."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import ghostnets
from ghostnets.cli.main import COMMANDS, MODULES

ROOT = Path(ghostnets.__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "ghostnets").rglob("README.md")),
]
BLOCK_LINE = re.compile(r"^ +(?:torchrun .* -m )?(ghostnets .*)$", flags=re.MULTILINE)
SCRIPT = re.compile(
    r"(?:^ +|`)(?:[A-Z_]+=\S+ )*(?:python )?((?:scripts|benchmarks)/\w+(?:\.py)?)\b([^`\n]*)", flags=re.MULTILINE
)
OTHER = r"(?:[A-Z_]+=\S+ )?(?:ghostnets|pip|python|torchrun|curl|cmake|docker|mkdir|scripts/\w+) "
LANGUAGES = {"```python", "```text", "```json", "```yaml"}
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


@pytest.mark.parametrize(
    "document", [ROOT / "CONTRIBUTING.md", *DOCUMENTS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_documented_scripts_exist_and_have_the_options(document: Path):
    if document.name == "log.md":  # of what was there once
        return
    for script, arguments in SCRIPT.findall(document.read_text(encoding="utf-8").replace("\\\n", " ")):
        source = (ROOT / script).read_text(encoding="utf-8").replace("-", "_")
        own, _, passed_on = arguments.partition("  ")[0].partition(" -- ")  # to ghostnets train
        options = re.findall(r" (--[a-z][a-z0-9-]+)", own) if script.endswith(".py") else []
        missing = [option for option in options if option[2:].replace("-", "_") not in source]
        files = (ROOT / "ghostnets" / name for name in ("cli/options/train.py", "train/recipe.py"))
        train = "".join(file.read_text(encoding="utf-8") for file in files)
        missing += [o for o in re.findall(r"(--[a-z][a-z0-9-]+)", passed_on) if o[2:].replace("-", "_") not in train]
        assert not missing, f"{script}: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_blocks_have_a_language_or_are_commands(document: Path):
    """Python examples are found, and run, by their language; indented blocks are command lines."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    assert set(re.findall(r"^```.*$", text, flags=re.MULTILINE)) <= LANGUAGES | {"```"}
    for block in re.findall(r"^```json\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        json.loads(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        assert all(isinstance(part, dict) for part in yaml.safe_load_all(block))
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ {4}(\S.*)$", outside, flags=re.MULTILINE)
    assert [line for line in lines if not re.match(OTHER, f"{line} ")] == []
    service = (ROOT / "ghostnets" / "serve" / "app.py").read_text(encoding="utf-8")
    for route in re.findall(r"^ +curl .*?(?:localhost|127\.0\.0\.1):8000(/[\w/]+)", outside, flags=re.MULTILINE):
        assert f'"{route}"' in service, route
