"""Prints the requirements of the package and of the given extras, for pip install --requirement.

scripts/setup installs them while the package is built; pip would build the package first.

    python scripts/list_requirements.py dev
    python scripts/list_requirements.py serve,train
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def list_requirements(extras: str) -> Iterator[str]:
    """Yield the requirements of extras, separated by commas; where one names other extras of the package, theirs."""
    table = PROJECT["optional-dependencies"]
    for extra in extras.split(","):
        if extra not in table:
            sys.exit(f"there is no extra named {extra!r}; choose some of {', '.join(table)}, separated by commas.")
        for requirement in table[extra]:
            nested = re.fullmatch(r"ghostnets\[(.+)\]", requirement)
            yield from list_requirements(nested[1]) if nested else [requirement]


if __name__ == "__main__":
    for line in dict.fromkeys([*PROJECT["dependencies"], *list_requirements(sys.argv[1])]):
        print(line)
