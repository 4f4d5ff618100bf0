"""The engine is tested wherever it could be built: a compiler without an engine is a failure, not a reason to skip."""

import shutil

import pytest

from ghostnets.engine.session import is_built


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not is_built() and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        for item in items:
            if "tests/engine/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="the engine needs a C++ compiler"))
