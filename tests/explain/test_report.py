"""``report.html``: complete and self-contained; figure formats."""

import re
from pathlib import Path

import pytest
from conftest import Page

from ghostnets.errors import ConfigurationError
from ghostnets.explain.figures import confusion_figure, save_figure


def test_report_has_all_sections_and_inline_images(tiny_run: Path):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    for section in (
        "Training curves",
        "Example predictions",
        "Confusion matrix",
        "Intrinsic maps",
        "Cost",
        "Reproduce this run",
    ):
        assert re.search(rf">{section}[^<]*</h2>", text)
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) > 20
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    svgs = [attributes for tag, attributes in page.found if tag == "svg"]
    assert [svg["aria-label"] for svg in svgs] == ["Curves of loss and accuracy over the epochs", "Confusion matrix"]
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert "ghostnets train" in text
    assert "chosen as well" in text  # without a test split the page warns that validation accuracy is optimistic


def test_report_sends_no_request(tiny_run: Path):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert Page(text).requests() == []


def test_save_figure_writes_png_svg_pdf_and_rejects_others(tmp_path: Path):
    figure = confusion_figure([[3, 1], [0, 4]], ["a", "b"])
    for suffix, magic in [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]:
        save_figure(figure, tmp_path / f"a{suffix}", suffix)
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(magic)
    with pytest.raises(ConfigurationError, match=r"cannot be saved as '\.txt'"):
        save_figure(figure, tmp_path / "a.txt", ".txt")
    save_figure(confusion_figure([[1] * 40] * 40, [str(i) for i in range(40)]), tmp_path / "b.png", ".png")
