"""The page at / in a real browser: user actions and the resulting predictions."""

import csv
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import Browser, enliven, wait_for
from PIL import Image

from ghostnets.artefacts import load_classifier, load_detector, load_segmenter
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.checkpoints.fetch import download
from ghostnets.errors import CheckpointError
from ghostnets.explain import disable_ghosts, find_ghost_modules
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing, class_color
from ghostnets.serve import ServiceSettings, create_app

uvicorn = pytest.importorskip("uvicorn", reason="the service needs the extra 'serve'")
pytestmark = pytest.mark.browser

AXE = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}


@contextmanager
def run_service(path: Path, **settings: Any) -> Iterator[str]:
    """Run the service in a thread; yield its URL."""
    app = create_app(path, ServiceSettings(threads=1, **settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def checkpoint(tiny_run: Path) -> Path:
    return tiny_run / "best.safetensors"


@pytest.fixture(scope="module")
def address(checkpoint: Path) -> Iterator[str]:
    with run_service(checkpoint) as address:
        yield address


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a dark and a light image, like those that the network was trained on."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    paths = {}
    for name, level in (("dark", 60), ("light", 180)):
        paths[name] = folder / f"{name}.png"
        pixels = generator.normal(level, 30, (40, 52, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(paths[name])
    return paths


def classify(page: Any, *images: Path) -> Any:
    """Choose images and wait for the predictions; return the cards, newest first."""
    page.set_input_files("#files", list(images))
    wait_for(page, "!document.querySelector('[aria-busy]') && document.querySelector('.card')")
    return page.locator(".card").all()


def first_prediction(card: Any) -> tuple[str, str]:
    entry = card.locator(".bars li").first
    return entry.locator(".name").inner_text(), entry.locator(".value").inner_text()


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class AblationCase(NamedTuple):
    """A service whose prediction changes without the ghosts of one module, and its probabilities."""

    address: str
    layer: str
    modules: list[str]
    plain: torch.Tensor
    zeros: torch.Tensor
    copies: torch.Tensor


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Path]) -> Iterator[AblationCase]:
    """The classifier's bias moves the decision boundary between the two cases, its scale makes both confident."""
    torch.manual_seed(1)
    arguments = {"width": 0.1, "num_classes": 2}
    network = enliven(create_model("ghostnet_050", **arguments))
    preprocessing = Preprocessing.standard(48, 3)
    layer = list(find_ghost_modules(network))[2]
    x = preprocessing.normalize(preprocessing.center(preprocessing.read(images["dark"]))[None])

    @torch.inference_mode()
    def scores(fill: str | None) -> torch.Tensor:
        with disable_ghosts(network, {layer: None} if fill else {}, fill=fill or "zeros"):
            return network(x)[0]

    margins = [float(scores(fill) @ torch.tensor([1.0, -1.0])) for fill in (None, "zeros")]
    with torch.no_grad():
        network.classifier.bias[0] -= sum(margins) / 2
        for parameter in network.classifier.parameters():
            parameter *= 4 / (margins[0] - margins[1])
    plain, zeros, copies = (scores(fill).softmax(0) for fill in (None, "zeros", "copies"))
    assert plain[0] > 0.8
    assert zeros[1] > 0.8
    path = tmp_path_factory.mktemp("ablation") / "net.safetensors"
    names, state = ("with ghosts", "without"), network.state_dict()
    save_checkpoint(path, Checkpoint("ghostnet_050", arguments, state, names, preprocessing))
    with run_service(path) as address:
        yield AblationCase(address, layer, list(find_ghost_modules(network)), plain, zeros, copies)


def test_predictions_match_network(browser: Browser, address: str, checkpoint: Path, images: dict[str, Path], tmp_path):
    broken = tmp_path / "notes.png"
    broken.write_text("not an image")
    page = browser.open(address)
    cards = classify(page, images["dark"], broken, images["light"])
    classifier = load_classifier(checkpoint)
    for card, (name, image) in zip((cards[0], cards[2]), images.items(), strict=True):
        probabilities = classifier.run(classifier.read(image)[None]).scores[0]
        assert first_prediction(card) == (name, percent(probabilities.max()))
        assert " ms including" in card.locator(".time").inner_text()
    assert "notes.png cannot be read as an image" in cards[1].inner_text()
    assert cards[1].locator(".explore").count() == 0
    status = f"422 ({HTTPStatus(422).phrase})"  # Python 3.13 has another phrase
    rejected = f"error: Failed to load resource: the server responded with a status of {status}"
    assert browser.complaints == [rejected]  # logged by the browser itself
    browser.complaints.clear()
    cards[1].get_by_role("button", name="Remove notes.png").click()
    assert page.locator(".card").count() == 2


def test_downloads_and_remove_all(browser: Browser, address: str, images: dict[str, Path], tmp_path: Path):
    formula = tmp_path / '=1+1,"x".png'
    formula.write_bytes(images["light"].read_bytes())
    page = browser.open(address)
    classify(page, images["dark"], formula)

    def download(name: str) -> str:
        with page.expect_download() as event:
            page.get_by_role("button", name=name).click()
        return Path(event.value.path()).read_text(encoding="utf-8")

    first, second = json.loads(download("Download JSON"))
    assert (first["path"], first["answers"][0]["class"], first["error"]) == ("dark.png", "dark", None)
    assert second["path"] == formula.name
    text = download("Download CSV")
    assert text.startswith("\ufeffpath,class_1,probability_1,class_2,probability_2,error\n")
    rows = list(csv.reader(text.splitlines()))
    assert [row[0] for row in rows[1:]] == ["dark.png", f"'{formula.name}"]
    assert rows[1][1:3] == ["dark", f"{first['answers'][0]['probability']:.6f}"]
    page.get_by_role("button", name="Remove all").click()
    assert page.locator(".card").count() == 0
    assert page.locator("#predictions-section").is_hidden()
    assert page.evaluate("document.activeElement.id") == "choose"


def test_drop_paste_and_camera(browser: Browser, address: str):
    page = browser.open(address)
    page.evaluate("""async () => {
      const canvas = document.createElement("canvas");
      const blob = await new Promise((done) => canvas.toBlob(done));
      for (const [kind, key] of [["drop", "dataTransfer"], ["paste", "clipboardData"]]) {
        const data = new DataTransfer();
        data.items.add(new File([blob], kind));
        const event = kind === "drop" ? new DragEvent(kind, { dataTransfer: data, cancelable: true, bubbles: true })
                                      : new ClipboardEvent(kind, { clipboardData: data, bubbles: true });
        document.body.dispatchEvent(event);
      }
    }""")
    page.get_by_role("button", name="Use camera").click()
    page.get_by_role("button", name="Take photo").click()
    page.get_by_role("button", name="Close camera").click()
    wait_for(page, "document.querySelectorAll('.time').length === 3")
    assert page.locator(".card h3").all_inner_texts() == ["photo 1", "paste", "drop"]
    assert page.locator("#camera").is_hidden()
    assert page.evaluate("document.getElementById('video').srcObject") is None  # the camera is released


def test_disabled_ghosts_change_prediction(browser: Browser, ablation: AblationCase, images: dict[str, Path]):
    page = browser.open(ablation.address)
    classify(page, images["dark"])
    page.get_by_role("button", name="Ghosts of dark.png").click()

    def shows(text: str) -> None:
        wait_for(page, "text => document.getElementById('effect').textContent.includes(text)", text)

    def title_begins(text: str) -> None:
        wait_for(page, "text => document.getElementById('pairs-title').textContent.startsWith(text)", text)

    shows(f"with ghosts, {percent(ablation.plain[0])}. All ghosts are enabled.")
    page.select_option("#layer", ablation.layer)
    title_begins(ablation.layer)
    page.get_by_role("button", name="Disable all ghosts of this module").click()
    shows("the prediction changes from with ghosts to without.")
    rows = page.locator("#comparison li .value").all_inner_texts()
    assert rows == [f"{percent(was)} → {percent(now)}" for was, now in zip(ablation.plain, ablation.zeros, strict=True)]
    pressed = page.locator("#pairs button").evaluate_all("all => all.map(one => one.ariaPressed)")
    assert set(pressed) == {"false"}

    page.get_by_label("a copy of their intrinsic map").check()
    shows(f"→ {percent(ablation.copies[0])}." if ablation.copies[0] > 0.5 else "changes")
    wait_for(
        page, "text => document.getElementById('comparison').textContent.includes(text)", percent(ablation.copies[0])
    )
    page.get_by_role("button", name="Enable all ghosts").click()
    shows("All ghosts are enabled.")
    page.locator("#pairs button").first.click()
    shows("With 1 ghost disabled")

    page.get_by_text("Cost by layer").click()
    page.wait_for_selector("#cost-rows tr")
    titles = page.locator("#cost-rows th").all_inner_texts()
    assert [title for title in titles if title in ablation.modules] == ablation.modules
    assert page.locator("#cost-rows [aria-current] th").inner_text() == ablation.layer


def test_keyboard_only(browser: Browser, ablation: AblationCase, images: dict[str, Path]):
    page = browser.open(ablation.address)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"{selector} is not reachable with Tab")

    page.on("filechooser", lambda chooser: chooser.set_files(images["dark"]))
    tab_to("#choose")
    page.keyboard.press("Enter")
    page.wait_for_selector(".explore:visible")
    tab_to(".explore")
    page.keyboard.press("Enter")
    page.wait_for_selector("#pairs button")
    assert page.evaluate("document.activeElement.id") == "explorer-title"
    tab_to("#layer")
    before = page.locator("#pairs-title").inner_text()
    page.keyboard.press("ArrowDown")
    wait_for(page, "text => document.getElementById('pairs-title').textContent !== text", before)
    tab_to("[name=fill]")
    page.keyboard.press("ArrowDown")
    assert page.locator("[value=copies]").is_checked()
    tab_to("#pairs button")
    page.keyboard.press("Space")
    wait_for(page, "document.getElementById('effect').textContent.includes('With 1 ghost disabled')")
    assert page.evaluate("document.activeElement.ariaPressed") == "false"  # the focus is unchanged


def test_token_prompt(browser: Browser, checkpoint: Path, images: dict[str, Path], tmp_path: Path):
    (tmp_path / "token").write_text("open-sesame")
    with run_service(checkpoint, token_file=tmp_path / "token") as address:
        page = browser.open(address)
        for token in ("wrong", "open-sesame"):
            page.get_by_label("This service requires a token").fill(token)
            page.keyboard.press("Enter")
            wait_for(page, "document.getElementById('token').value === ''")
        wait_for(page, "document.getElementById('model').textContent.includes('2 classes')")
        assert page.locator("#token-form").is_hidden()
        assert first_prediction(classify(page, images["light"])[0])[0] == "light"
    assert all("401 (Unauthorized)" in complaint for complaint in browser.complaints)  # logged by the browser itself
    browser.complaints.clear()


@pytest.mark.parametrize("phone", [False, True])
def test_accessibility_on_desktop_and_dark_phone(browser: Browser, address: str, images: dict[str, Path], phone: bool):
    page = browser.open(address, **(PHONE if phone else {}), reduced_motion="reduce")
    classify(page, *images.values())
    page.get_by_role("button", name="Ghosts of dark.png").click()
    page.wait_for_selector("#pairs button")
    page.get_by_text("Cost by layer").click()
    page.wait_for_selector("#cost-rows tr")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 28)" if phone else "rgb(246, 247, 249)")
    assert page.evaluate("getComputedStyle(document.querySelector('.track i')).transitionDuration") == "0s"
    page.evaluate(axe_source())  # the content security policy forbids a script element
    found = page.evaluate("axe.run()")
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []
    assert found["passes"]


def axe_source() -> str:
    """Return the source of axe-core, an accessibility checker."""
    try:
        with tarfile.open(download(AXE, sha256=AXE_SHA256)) as archive:
            script = archive.extractfile("package/axe.min.js")
            assert script is not None
            return script.read().decode()
    except CheckpointError as error:
        pytest.skip(f"axe-core is not in the cache: {error}")


def test_boxes_of_a_detector(browser: Browser, tiny_detector: Path, images: dict[str, Path], tmp_path: Path):
    with run_service(tiny_detector) as address:
        page = browser.open(address)
        (card,) = classify(page, images["dark"])
        found = load_detector(tiny_detector, threads=1)(images["dark"])
        assert len(found.labels) > 0
        assert card.locator(".bars .name").all_inner_texts() == list(found.classes)
        assert card.locator(".bars .value").all_inner_texts() == [percent(score) for score in found.scores]
        assert card.locator("canvas.picture").get_attribute("aria-label").startswith(f"{len(found.labels)} objects: ")
        with page.expect_download() as event:
            page.get_by_role("button", name="Download CSV").click()
        rows = list(csv.DictReader(Path(event.value.path()).read_text(encoding="utf-8-sig").splitlines()))
        assert [row["class"] for row in rows] == list(found.classes)
        boxes = [[float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")] for row in rows]
        np.testing.assert_allclose(boxes, found.boxes, atol=0.02)
        page.get_by_role("button", name="Use camera").click()
        page.get_by_role("button", name="Take photo").click()
        wait_for(page, "document.querySelectorAll('.time').length === 2")
        assert page.locator("canvas.picture").count() == 2
        assert "the model is a detector" in page.locator("#no-explorer").inner_text()


def test_mask_of_a_segmentation_network(browser: Browser, tiny_segmenter: Path, tmp_path: Path):
    image = tmp_path / "squares.png"
    squares = Image.fromarray(np.random.default_rng(1).integers(0, 255, (5, 6, 3), np.uint8))
    squares.resize((90, 60), Image.Resampling.NEAREST).save(image)
    with run_service(tiny_segmenter) as address:
        page = browser.open(address)
        (card,) = classify(page, image)
        found = load_segmenter(tiny_segmenter, threads=1)(image)
        assert len(found.shares) > 1
        listed = [f"{name} {percent(share)}" for name, share in found.shares.items()]
        assert [text.strip() for text in card.locator(".legend li").all_inner_texts()] == listed
        assert card.locator("canvas.picture").get_attribute("aria-label") == ", ".join(listed)
        drawn = card.locator("canvas.picture").evaluate(
            "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
        )
        pixels = np.reshape(drawn, (60, 90, 4))[..., :3]
        palette = np.array([class_color(label) for label in range(3)])
        expected = (np.asarray(Image.open(image)).astype(float) + palette[found.mask]) / 2
        assert np.abs(pixels - expected).max() <= 2
        with page.expect_download() as event:
            page.get_by_role("button", name="Download CSV").click()
        (row,) = csv.DictReader(Path(event.value.path()).read_text(encoding="utf-8-sig").splitlines())
        assert {name: float(row[name]) for name in found.shares} == pytest.approx(found.shares, abs=1e-6)
        page.get_by_role("button", name="Use camera").click()
        page.get_by_role("button", name="Take photo").click()
        wait_for(page, "document.querySelectorAll('.time').length === 2")
        assert page.locator("canvas.picture").count() == 2
        assert "the model is a segmentation network" in page.locator("#no-explorer").inner_text()
