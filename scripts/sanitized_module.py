"""The engine's native module with the address and undefined-behaviour sanitizers, for scripts that run it from Python.

``run_sanitized()`` builds it in build/sanitize/module, starts the script again with the sanitizers' libraries loaded
first, and there puts it in place of the installed module. Needs CMake, Ninja, nanobind and GCC.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["run_sanitized"]

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "sanitize" / "module"
NAME = "ghostnets.engine._native"
MARK = "GHOSTNETS_SANITIZED"
OPTIONS = {
    # Python frees not all of its memory; libstdc++ allocates by the sanitizer's operator new, and not by ours.
    "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:allocator_may_return_null=1:abort_on_error=1"
    ":quarantine_size_mb=32",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def run_sanitized() -> Path:
    """Continue with the module in place; call it before ``ghostnets.engine`` is imported. Returns the module's path."""
    path = BUILD / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    if MARK not in os.environ:
        _build()
        libraries = " ".join(_library(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so"))
        environment = {**os.environ, **OPTIONS, MARK: "1", "LD_PRELOAD": libraries}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
    return path


def _build() -> None:
    nanobind = subprocess.check_output([sys.executable, "-m", "nanobind", "--cmake_dir"], text=True).strip()
    settings = {
        "CMAKE_BUILD_TYPE": "None",
        "SANITIZE": "ON",
        "Python_EXECUTABLE": sys.executable,
        "nanobind_DIR": nanobind,
    }
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    subprocess.run(["cmake", "-G", "Ninja", *definitions, "-S", ROOT / "csrc", "-B", BUILD], check=True, stdout=2)
    subprocess.run(["cmake", "--build", BUILD, "--target", "_native"], check=True, stdout=2)


def _library(name: str) -> str:
    compiler = os.environ.get("CXX", "g++")
    return subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
