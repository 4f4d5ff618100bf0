"""The folder of ``--format web`` in a real browser, on a static host and offline."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Browser, serve_folder, wait_for
from PIL import Image

from ghostnets.artefacts import load_classifier, load_detector, load_segmenter
from ghostnets.cli.main import main
from ghostnets.errors import CheckpointError
from ghostnets.export import web

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the page of a small network, replacing an older export."""
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
    """Dark and light, wide and tall, PNG and JPEG, grayscale and colour images."""
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


def test_page_matches_python_online_and_offline(browser: Browser, folder: Path, pictures: list[Path], tiny_run: Path):
    assert not (folder / "older.js").exists()
    classifier = load_classifier(tiny_run / "best.safetensors")
    expected = classifier(pictures)

    def check() -> None:
        page.set_input_files("#files", pictures)
        wait_for(page, "document.querySelectorAll('.time').length === 4")
        for card, prediction in zip(page.locator(".card").all(), expected, strict=True):
            names = card.locator(".name").all_inner_texts()
            shares = [float(text.removesuffix(" %")) / 100 for text in card.locator(".value").all_inner_texts()]
            assert names == list(prediction.classes)
            np.testing.assert_allclose(shares, prediction.probabilities, atol=0.005)  # shown to 0.1 %

    with serve_folder(folder) as address:
        page = browser.open(address)
        assert page.locator("#no-explorer").inner_text().startswith("The ghost explorer needs")
        check()
        wait_for(page, "document.getElementById('model').textContent.includes('works offline')")
    page.reload()  # the host is down
    check()
    wait_for(page, "document.getElementById('model').textContent.includes('works offline')")


@pytest.mark.parametrize("task", ["detect", pytest.param("segment", marks=pytest.mark.slow)])  # masks: test_web_page.py
def test_page_of_boxes_and_masks(
    browser: Browser,
    folder: Path,
    pictures: list[Path],
    tiny_detector: Path,
    tiny_segmenter: Path,
    tmp_path: Path,
    task,
):
    source = tiny_detector if task == "detect" else tiny_segmenter
    assert main(["export", str(source), "--format", "web", "--out", str(tmp_path / "site")]) == 0
    assert (tmp_path / "site" / "runtime").is_dir()
    assert (tmp_path / "site" / "THIRD_PARTY_NOTICES.txt").is_file()
    with serve_folder(tmp_path / "site") as address:
        page = browser.open(address)
        page.set_input_files("#files", pictures[:1])
        wait_for(page, "document.querySelectorAll('.time').length === 1")
        assert page.locator(".card canvas.picture").count() == 1
        if task == "detect":
            found = load_detector(source, threads=1)(pictures[0])
            assert page.locator(".card .name").all_inner_texts() == list(found.classes)
            shown = [float(text.removesuffix(" %")) / 100 for text in page.locator(".card .value").all_inner_texts()]
            np.testing.assert_allclose(shown, found.scores, atol=0.005)
        else:
            rows = page.locator(".legend li").all_inner_texts()
            found = load_segmenter(source, threads=1)(pictures[0])
            assert [row.split()[0] for row in rows] == list(found.shares)
            shown = [float(row.split()[1]) / 100 for row in rows]
            np.testing.assert_allclose(shown, list(found.shares.values()), atol=0.01)
        assert page.locator("#no-explorer").inner_text() == "The ghost explorer is for classifiers."


def test_unreadable_image_shows_error(browser: Browser, folder: Path, tmp_path: Path):
    broken = tmp_path / "notes.png"
    broken.write_text("not an image")
    with serve_folder(folder) as address:
        page = browser.open(address)
        page.set_input_files("#files", broken)
        page.wait_for_selector(".card .error")
        assert "cannot be decoded as an image" in page.locator(".card .error").inner_text()


def test_export_to_unrelated_folder_fails(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "thesis.tex").touch()
    arguments = ["export", str(tiny_run / "best.safetensors"), "--format", "web", "--to", str(tmp_path)]
    assert main(arguments) == 1
    assert "is not a web export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert main([*arguments, "--precision", "int8"]) == 1
    assert "the web page uses f32" in capsys.readouterr().err


def test_runtime_download_failure_names_cache(tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(web, "RUNTIME", "http://127.0.0.1:9/runtime-1.tgz")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    target = tmp_path / "site"
    assert main(["export", str(tiny_run / "best.safetensors"), "--format", "web", "--to", str(target)]) == 1
    stderr = capsys.readouterr().err
    assert "could not download http://127.0.0.1:9/runtime-1.tgz" in stderr
    assert str(tmp_path / "cache") in stderr  # where to put the file by hand
    assert not target.exists()
