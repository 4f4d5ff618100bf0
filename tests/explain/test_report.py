"""``report.html``: complete and self-contained; figure formats."""

import re
from pathlib import Path

import pytest
import torch
from conftest import Browser, Page, serve_folder

from ghostnets.errors import ConfigurationError
from ghostnets.explain import (
    AblationResult,
    ClassMetrics,
    ComparedRun,
    DataSummary,
    LayerAblation,
    MetricCurve,
    PredictionExample,
    RunReport,
    compute_savings,
    write_report,
)
from ghostnets.explain.captions import ablation_caption
from ghostnets.explain.comparison import comparison_figure
from ghostnets.explain.confusion import MAX_MATRIX_CLASSES, select_classes
from ghostnets.explain.figures import confusion_figure, save_figure
from ghostnets.explain.page import PRINTED_ROWS
from ghostnets.models import create_model


def test_report_has_all_sections_and_inline_images(tiny_run: Path):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    for section in (
        "Example predictions",
        "Confusion matrix",
        "Classes",
        "Training curves",
        "Reproduce this run",
        "Cost",
        "Intrinsic maps",
    ):
        assert re.search(rf">{section}[^<]*</h2>", text)
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) > 20
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    svgs = [attributes for tag, attributes in page.found if tag == "svg"]
    assert [svg["aria-label"] for svg in svgs] == ["Curves of loss and accuracy over the epochs"]
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert "ghostnets train" in text
    assert (
        "the best epoch was also chosen" in text
    )  # without a test split the page warns that validation accuracy is optimistic


def test_report_sends_no_request(tiny_run: Path):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert Page(text).requests() == []


def test_save_figure_writes_png_svg_pdf_and_rejects_others(tmp_path: Path):
    figure = confusion_figure([(0, 0, 3), (0, 1, 1), (1, 1, 4)], ["a", "b"])
    for suffix, magic in [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]:
        save_figure(figure, tmp_path / f"a{suffix}", suffix)
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(magic)
    with pytest.raises(ConfigurationError, match=r"cannot be saved as '\.txt'"):
        save_figure(figure, tmp_path / "a.txt", ".txt")
    cells = [(i, j, 1) for i in range(40) for j in range(40)]
    save_figure(confusion_figure(cells, [str(i) for i in range(40)]), tmp_path / "b.png", ".png")


def test_confusion_figure_draws_names_as_text_and_numbers_undrawable_ones(tmp_path: Path):
    names = ["US$1_$2^", "café", "كلب", "हिन्दी", "_hidden", r"\$x\$", "a" * 90, "bell\a"]
    figure = confusion_figure([(i, i, 1) for i in range(len(names))], names)
    save_figure(figure, tmp_path / "a.png", ".png")  # a glyph that is missing would be a warning, and an error
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:6] == ["US$1_$2^", "café", "no. 3", "no. 4", "_hidden", r"\$x\$"]
    assert len(labels[6]) == 28
    assert labels[7] == "no. 8"


def test_select_classes_puts_confused_classes_next_to_each_other():
    assert select_classes([(0, 0, 9), (0, 3, 5), (1, 2, 2), (3, 1, 1)], 4) in ([0, 3, 1, 2], [3, 0, 1, 2])
    chosen = select_classes([(700, 2, 4), (2, 900, 3)], 1000)
    assert len(chosen) == MAX_MATRIX_CLASSES
    assert set(chosen[:3]) == {700, 2, 900}
    assert sorted(select_classes([], 3)) == [0, 1, 2]


def _page(folder: Path, names: list[str], cells: list[tuple[int, int, int]]) -> Page:
    """The report of random weights, with the given confusion matrix and one mistake."""
    model = create_model("ghostnet_050", num_classes=2).eval()
    pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
    example = PredictionExample(
        pixels, names[0], names[1], 0.9, "photos/<b>/a b%.png", "../photos/%3Cb%3E/a%20b%25.png"
    )
    images, predicted = ([sum(c[2] for c in cells if c[axis] == i) for i in range(len(names))] for axis in (0, 1))
    correct = [sum(c[2] for c in cells if c[0] == c[1] == i) for i in range(len(names))]
    report = RunReport(
        title="a run",
        summary="",
        warnings=["Always predicting <b>, the largest class."],
        figures={"top-1": "50.0% (30 to 70%)"},
        epochs=[1],
        curves=[MetricCurve("loss", [1.0], [1.0])],
        classes=list(map(ClassMetrics, names, [2] * len(names), images, predicted, correct)),
        confusion=cells,
        evaluated_on="",
        data=DataSummary({"train": dict.fromkeys(names, 2), "val": {names[0]: 1}}, ["left out: x.nef <raw>"]),
        examples={"Mistakes": [example]},
        model=model,
        example_input=torch.zeros(1, 3, 32, 32),
        example_pixels=pixels,
        savings=compute_savings(model, None, (3, 32, 32)),
        settings={},
        command="ghostnets train",
    )
    write_report(folder / "report.html", report)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_report_escapes_names_and_links_files(tmp_path: Path):
    page = _page(tmp_path, ["<script>", "猫 US$1_$2^", "none"], [(0, 0, 3), (0, 1, 2), (1, 1, 4)])
    assert "&lt;script&gt;" in page.text
    assert "猫 US$1_$2^" in page.text
    links = [attributes["href"] for tag, attributes in page.found if tag == "a" and "%20" in str(attributes["href"])]
    assert links == ["../photos/%3Cb%3E/a%20b%25.png"]
    assert "2 of 5" in page.text
    assert "40.0% (12 to 77%)" in page.text
    assert re.search(r"none</bdi></td><td>2</td><td>0</td><td>–</td><td>–</td>", page.text)
    assert "left out: x.nef &lt;raw&gt;" in page.text
    assert "<td>6</td><td>3</td><td>2</td>" in page.text  # images, classes, images of a class in train


def test_report_of_many_classes_grows_linearly(tmp_path: Path):
    names = [f"class {i:04} with a long name" for i in range(1000)]
    cells = [(i, j % 1000, 1 + i % 3) for i in range(1000) for j in (i, i + 1, i + 7)]
    page = _page(tmp_path, names, cells)
    assert sum("data-row" in attributes for _, attributes in page.found) == 1 + 500 + 1000
    assert sum(attributes.get("class") in ("hit", "miss") for _, attributes in page.found) <= MAX_MATRIX_CLASSES**2
    assert len(page.text) < 1_500_000
    _, _, on_paper = page.text.partition("@media print")
    assert f".tall tbody tr:nth-child(n + {PRINTED_ROWS + 1} of :not([hidden])) {{ display: none; }}" in on_paper
    for line in ("the first 40 of 500 pairs", "the first 40 of 1,000 classes"):
        assert line in on_paper


def test_comparison_figure_draws_names_of_runs_as_they_are(tmp_path: Path):
    names = ["US$1_$2^", "_hidden"]
    figure = comparison_figure([ComparedRun(name, [1, 2], {"loss": [1.0, 0.5]}, {}, {}) for name in names])
    save_figure(figure, tmp_path / "a.png", ".png")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_ablation_caption_gives_signed_changes_and_the_interval():
    caption = ablation_caption(AblationResult(24, 0.5, (LayerAblation("a", 8, copies=0.54, zeros=0.46),)))
    assert "50.0% (31 to 69%) of 24 images" in caption
    assert "by +4.0 points on average, zeros by -4.0" in caption
    assert caption.endswith("All of this is within the interval: use more images.")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_in_a_browser_filters_rows_and_fits_a_phone(tmp_path: Path, browser: Browser, scheme: str):
    names = [f"{stem} {i}" for i in range(60) for stem in ("a very long name of a class " * 4, "大斑啄木鸟", "كلب")]
    cells = [(i, (i + k) % 180, 2 - k) for i in range(180) for k in (0, 1)]
    _page(tmp_path, names, cells)
    with serve_folder(tmp_path) as address:
        page = browser.open(f"{address}/report.html", viewport={"width": 390, "height": 800}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        rows = "[...document.querySelectorAll('[data-row]')].filter((row) => row.offsetParent).length"
        assert page.evaluate(rows) == 1 + 180 + 180
        page.fill("#filter", "كلب 59")
        assert page.evaluate(rows) == int(page.text_content("#matches").split()[0])
        assert 1 <= page.evaluate(rows) < 10
        page.fill("#filter", "")
        assert page.evaluate(rows) == 1 + 180 + 180
        empty = "getComputedStyle(document.querySelector('.matrix tbody td:not([class])')).backgroundColor"
        assert page.evaluate(empty) == "rgba(0, 0, 0, 0)"  # not white in the dark
        line = "getComputedStyle(document.querySelector('.printed')).display"
        assert page.evaluate(line) == "none"
        page.emulate_media(media="print")
        assert page.evaluate(rows) == 1 + PRINTED_ROWS + PRINTED_ROWS
        assert page.evaluate(line) == "block"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
