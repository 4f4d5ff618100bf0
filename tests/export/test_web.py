"""The folder of ``--format web`` in a real browser, on a static host and then without one."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Browser, serve_folder, wait_for
from PIL import Image

from ghostnets.cli.main import main
from ghostnets.errors import CheckpointError
from ghostnets.export import web
from ghostnets.predict import load_predictor

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small network; made by the command line, over an older one."""
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the page needs the extra 'export'")
    folder = tmp_path_factory.mktemp("host") / "web"
    folder.mkdir()
    (folder / "files.js").write_text("older")
    (folder / "older.js").touch()
    try:
        web.download(web.RUNTIME, sha256=web.RUNTIME_SHA256)
    except CheckpointError as error:
        pytest.skip(f"ONNX Runtime for browsers is not in the cache: {error}")
    assert main(["export", str(tiny_run / "best.safetensors"), "--format", "web", "--to", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Dark to light, wide and tall, PNG and JPEG, grey and colour."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(7)
    found = []
    for index, (level, size) in enumerate(
        [(60, (40, 52, 3)), (180, (300, 90, 3)), (110, (64, 700, 3)), (140, (33, 21))]
    ):
        y, x = np.mgrid[0 : size[0], 0 : size[1]]
        waves = 25 * np.sin(x / 7 + y / 11).reshape(*size[:2], *[1] * (len(size) - 2))
        pixels = (level + waves + generator.normal(0, 12, size)).clip(0, 255).astype(np.uint8)
        found.append(folder / f"{index}.{'jpg' if index == 1 else 'png'}")
        Image.fromarray(pixels).save(found[-1])
    return found


def test_the_folder_answers_as_python_does_also_without_its_host(
    browser: Browser, folder: Path, pictures: list[Path], tiny_run: Path
):
    assert not (folder / "older.js").exists()
    predictor = load_predictor(tiny_run / "best.safetensors")
    expected = [predictor(picture) for picture in pictures]

    def check() -> None:
        page.set_input_files("#files", pictures)
        wait_for(page, "document.querySelectorAll('.time').length === 4")
        for card, right in zip(page.locator(".picture").all(), expected, strict=True):
            names = card.locator(".name").all_inner_texts()
            shares = [float(text.removesuffix(" %")) / 100 for text in card.locator(".value").all_inner_texts()]
            assert names == list(right.classes)
            np.testing.assert_allclose(shares, right.probabilities, atol=0.005)  # shown to 0.1 %; the JPEG's decoder

    with serve_folder(folder) as address:
        page = browser.open(address)
        assert page.locator("#no-explorer").inner_text().startswith("The ghost explorer needs")
        check()
        wait_for(page, "document.getElementById('network').textContent.includes('works offline')")
    page.reload()  # the host is gone
    check()
    wait_for(page, "document.getElementById('network').textContent.includes('works offline')")


def test_a_file_that_is_none_gets_a_sentence(browser: Browser, folder: Path, tmp_path: Path):
    broken = tmp_path / "notes.png"
    broken.write_text("no picture")
    with serve_folder(folder) as address:
        page = browser.open(address)
        page.set_input_files("#files", broken)
        page.wait_for_selector(".picture .bad")
        assert "cannot be read as a picture" in page.locator(".picture .bad").inner_text()


def test_a_folder_of_something_else_is_left_alone(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "thesis.tex").touch()
    arguments = ["export", str(tiny_run / "best.safetensors"), "--format", "web", "--to", str(tmp_path)]
    assert main(arguments) == 1
    assert "no folder of an earlier web export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert main([*arguments, "--precision", "int8"]) == 1
    assert "the page takes f32" in capsys.readouterr().err


def test_without_a_connection_the_way_out_is_told(tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(web, "RUNTIME", "http://127.0.0.1:9/runtime-1.tgz")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    target = tmp_path / "site"
    assert main(["export", str(tiny_run / "best.safetensors"), "--format", "web", "--to", str(target)]) == 1
    sentence = capsys.readouterr().err
    assert "could not download http://127.0.0.1:9/runtime-1.tgz" in sentence
    assert str(tmp_path / "cache") in sentence  # where to put it by hand
    assert not target.exists()
