#!/usr/bin/env python3
"""Check that both native modules of an installed wheel can be imported, with or without torch.

python scripts/check_wheel.py        with the Python into which the wheel was installed
"""

import importlib.machinery
import importlib.util
import platform
from pathlib import Path

import ghostnets
from ghostnets.native import ENGINE, TRAINING

for name in (ENGINE, TRAINING):  # the packages of the second need torch to be imported
    folder = Path(ghostnets.__file__).parent.joinpath(*name.split(".")[1:-1])
    spec = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} has no native module; this wheel was built without a compiler.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sets = ", ".join(module.instruction_sets()) if name == ENGINE else module.isa()
    print(f"ghostnets {ghostnets.__version__}, Python {platform.python_version()}, {name}: {sets}")
