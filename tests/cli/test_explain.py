"""``ghostnets explain``: page, figures, numbers and errors."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import Page, make_images
from PIL import Image

from ghostnets.cli.main import main
from ghostnets.explain.redundancy import KERNEL_SIZES


@pytest.fixture(scope="session")
def explained(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder for a trained network and labelled images; read-only."""
    folder = tmp_path_factory.mktemp("explained")
    photos = make_images(folder / "photos", classes={"dark": 7, "light": 6})
    (photos / "light" / "broken.jpg").write_bytes(b"no image")
    torch.set_num_threads(1)
    assert main(["explain", str(tiny_run / "best.safetensors"), "--images", str(photos), "--out", str(folder)]) == 0
    return folder


def test_explain_page_is_complete_and_sends_no_request(explained: Path):
    text = (explained / "explain.html").read_text(encoding="utf-8")
    page = Page(text)
    for title in (
        "The claim",
        "Similar maps",
        "Redundancy by depth",
        "Predicting one map from another",
        "Intrinsic maps and their ghosts",
        "Learned cheap kernels",
        "Ghost ablation",
        "Class activation maps",
        "Cost",
        "Reproduce this page",
    ):
        assert f">{title}</h2>" in text
    assert page.requests() == []
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) > 12
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    svgs = [attributes for tag, attributes in page.found if tag == "svg"]
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in svgs)
    assert len(re.findall(r"<figcaption>[A-Z0-9][^<]{30,}\.</figcaption>", text)) == len(svgs)  # one caption per figure
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    tables = [tag for tag, _ in page.found if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    scrollable = [a for _, a in page.found if a.get("class") in ("scroll", "figure wide", "figure narrow")]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrollable)  # keyboard-accessible
    assert len(text) < 15_000_000
    assert re.search(r'[✓✗] <bdi>(dark|light)</bdi></b>\s+.*<a href="photos/(dark|light)/\d+\.\w+">', text, re.DOTALL)


def test_numbers_json_matches_page(explained: Path):
    numbers = json.loads((explained / "numbers.json").read_text(encoding="utf-8"))
    redundancy, ablation = numbers["redundancy"], numbers["ablation"]
    assert redundancy["images"] == ablation["images"] == 13  # without the broken one
    layers = {layer["layer"]: layer for layer in redundancy["layers"]}
    linear = layers["blocks.0.0.ghost2"]
    assert linear["kind"] == "Ghost module"
    # The ghosts of a linear Ghost module are 3 x 3 filters of its intrinsic maps.
    assert linear["errors"]["3"] == pytest.approx(0, abs=1e-9)
    assert list(linear["errors"]) == [str(d) for d in KERNEL_SIZES]
    assert len(numbers["cheap_kernels"]) == len(ablation["layers"]) == 32
    assert 0 <= ablation["layers"][0]["zeros"] <= 1
    assert numbers["savings"]["theoretical_compression"] > 1
    assert numbers["speed"]["ratio"] > 0
    text = (explained / "explain.html").read_text(encoding="utf-8")
    assert f"top-1 on 13 images</dt><dd>{ablation['top1']:.1%}" in text


def test_explain_writes_every_figure_as_svg_and_png(explained: Path):
    figures = sorted(path.name for path in (explained / "figures").iterdir())
    stems = {name.rpartition(".")[0] for name in figures}
    assert figures == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg"))
    assert stems >= {"redundancy-by-depth", "error-by-filter", "kernel-kinds", "kernels", "without-ghosts"}
    for stem in stems:
        assert (explained / "figures" / f"{stem}.svg").read_text(encoding="utf-8").startswith("<?xml")
        with Image.open(explained / "figures" / f"{stem}.png") as image:
            assert image.width > 500


def test_explain_untrained_model_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A model name, a flat folder of images, --json and the default output folder."""
    make_images(tmp_path, classes={"flat": 2}, size=(40, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr("ghostnets.cli.explain.UNTRAINED_IMAGE_SIZE", 64)
        words = ["explain", "ghostnetv2_050", "--untrained", "--images", "flat", "--most", "1", "--json"]
        assert main(words) == 0
    captured = capsys.readouterr()
    numbers = json.loads(captured.out)
    assert numbers["ablation"] is None
    assert numbers["redundancy"]["images"] == 1
    assert "explain-ghostnetv2_050/explain.html" in captured.err
    text = (tmp_path / "explain-ghostnetv2_050" / "explain.html").read_text(encoding="utf-8")
    assert "no image has a label of the network" in text
    assert "Random weights" in text
    assert ">DFC attention</h3>" in text


def test_explain_rejects_invalid_input(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = str(tiny_run / "best.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"")
    for words, sentence in [
        ([checkpoint, "--images", str(tmp_path / "nowhere")], "is not a folder; pass a folder of images"),
        ([checkpoint, "--images", str(tmp_path / "empty")], "holds no image"),
        ([checkpoint, "--images", str(tmp_path / "broken")], "none of the 1 images"),
        ([checkpoint, "--images", str(tmp_path), "--most", "0"], "--most is 0"),
        ([checkpoint, "--images", str(tmp_path), "--untrained"], "--untrained requires a model name"),
        (["ghostnet_10", "--images", str(tmp_path)], "did you mean"),
    ]:
        assert main(["explain", *words]) == 1
        assert sentence in capsys.readouterr().err
