"""The C interface, by compiled programs: the outputs of Python's sessions, rejected files, and the example."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ghostnets import engine
from ghostnets.models import create_model
from ghostnets.native import ENGINE, import_native, missing_native

ROOT = Path(__file__).parents[2]
LIBRARY = Path("none" if missing_native(ENGINE) else import_native(ENGINE).__file__).parent / "lib"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

PROGRAM = os.environ.get("GHOSTNETS_C_INTERFACE")  # built by scripts/sanitize_engine, with the engine inside

pytestmark = pytest.mark.skipif(
    PROGRAM is None and (not COMPILER or not list(LIBRARY.glob("*ghostnets_engine*"))),
    reason="no C compiler, or no C library of the engine",
)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def build(source: Path, folder: Path) -> Path:
    program = folder / source.stem
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'csrc' / 'include'}"]
    link = [f"-L{LIBRARY}", f"-Wl,-rpath,{LIBRARY}", "-lghostnets_engine"]
    subprocess.run([COMPILER, *flags, source, *link, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if PROGRAM is not None:
        return Path(PROGRAM)
    return build(ROOT / "tests" / "engine" / "c_interface.c", tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with three segments in its Ghost modules, so that layouts are permuted and have discarded ghosts."""
    path = tmp_path_factory.mktemp("plan") / "net.engine"
    model = create_model("ghostnet_050", num_classes=7, width=0.25, ratio=3).eval()
    engine.compile(model, mean=MEAN, std=STD, threads=1).save(path, metadata={"note": 'café "x"'})
    return path


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8", "auto"])
@pytest.mark.parametrize("are_bytes", [False, True])
def test_outputs_are_those_of_python(tmp_path: Path, program: Path, precision: str, are_bytes: bool):
    model = create_model("ghostnetv2_050", num_classes=7, width=0.3, ratio=3).eval()
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, 3, 37, 41)).astype(np.float32)
    if are_bytes:
        images = generator.integers(0, 256, (2, 37, 41, 3)).astype(np.uint8)
    calibration = [images] if precision == "int8" else None
    session = engine.compile(model, mean=MEAN, std=STD, precision=precision, calibration=calibration, threads=1)
    session.save(tmp_path / "net.engine", metadata={"note": 'café "x"'})
    images.tofile(tmp_path / "images")
    files = [tmp_path / "net.engine", tmp_path / "images", "37", "41", str(int(are_bytes)), tmp_path / "outputs"]
    subprocess.run([program, "run", *files], check=True)
    expected = engine.load(tmp_path / "net.engine", precision="f32" if precision == "auto" else None)(images)
    outputs = np.fromfile(tmp_path / "outputs", np.float32).reshape(2, 7)
    if PROGRAM is None:
        np.testing.assert_array_equal(outputs, expected)
    else:  # other compiler options round differently
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=0.02 * np.abs(expected).max())


def mutations(content: bytes, count: int) -> list[bytes]:
    """Files with changed bytes, numbers and lengths."""
    draw = random.Random(0)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    found = [b"", content[:7], content[: length // 2], content[:-1], b"\xff" * 8 + content[8:]]
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(draw.choice([1, 1, 3])):
            changed[draw.randrange(8 + length)] = draw.randrange(256)
        found.append(bytes(changed))
        description = json.loads(header["__metadata__"]["ghostnets.engine"])
        node = draw.choice(description["nodes"])
        key = draw.choice(list(node))
        node[key] = draw.choice([-2, 0, 7, 2**31, 1.5, None, [], [[]], "none", "ghost", True, {"a": 1}])
        header["__metadata__"]["ghostnets.engine"] = json.dumps(description)
        text = json.dumps(header).encode()
        found.append(len(text).to_bytes(8, "little") + text + content[8 + length :])
        header = json.loads(content[8 : 8 + length])
    return found


def test_damaged_files_are_rejected_by_a_sentence(tmp_path: Path, program: Path, plan: Path):
    paths = []
    for number, content in enumerate(mutations(plan.read_bytes(), 150)):
        paths.append(tmp_path / f"{number}.engine")
        paths[-1].write_bytes(content)
    result = subprocess.run([program, "load", plan, *paths], check=True, capture_output=True, text=True)
    statuses = [int(line.split(" ")[0]) for line in result.stdout.splitlines()]
    assert len(statuses) == 1 + len(paths)
    assert statuses[0] == 0
    assert set(statuses) <= {0, 2, 3}
    assert sum(status == 2 for status in statuses) > 200


def classify(example: Path, plan: Path, folder: Path) -> None:
    """Compares the example's answer with Python's, and its error for a file that is no plan with a sentence."""
    image = np.random.default_rng(0).integers(0, 256, (1, 33, 47, 3)).astype(np.uint8)
    (folder / "image.ppm").write_bytes(b"P6\n47 33\n255\n" + image.tobytes())
    found = subprocess.run([example, plan, folder / "image.ppm"], check=True, capture_output=True, text=True)
    logits = engine.load(plan, threads=1)(image)[0]
    assert f"class {logits.argmax()} of 7, logit {logits.max():.6g}" in found.stdout
    wrong = subprocess.run([example, folder / "image.ppm", plan], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "its header is longer than the file" in wrong.stderr


def test_example_classifies_an_image(tmp_path: Path, plan: Path):
    classify(build(ROOT / "examples" / "c" / "classify.c", tmp_path), plan, tmp_path)


@pytest.mark.slow  # compiles all kernels
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_example_builds_against_the_installed_library(tmp_path: Path, plan: Path):
    def cmake(*arguments: str | Path) -> None:
        subprocess.run(["cmake", *arguments], check=True)

    library, prefix, example = tmp_path / "library", tmp_path / "prefix", tmp_path / "example"
    cmake("-S", ROOT / "csrc", "-B", library, "-DPYTHON_MODULES=OFF")
    cmake("--build", library, "--target", "ghostnets_engine", "--parallel", "2")
    cmake("--install", library, "--component", "engine", "--prefix", prefix)
    shutil.rmtree(library)
    prefix = prefix.rename(tmp_path / "moved")  # it needs neither its build nor its place
    cmake("-S", ROOT / "examples" / "c", "-B", example, f"-DCMAKE_PREFIX_PATH={prefix}")
    cmake("--build", example)
    classify(example / "classify", plan, tmp_path)
