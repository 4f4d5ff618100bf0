"""The ghost explorer's routes: answers are those of the network itself, refusals are one sentence."""

import base64
import io
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from running_service import NAMES, PREPROCESSING, encoded, write_checkpoint, write_plan

from ghostnets.checkpoints import read_checkpoint
from ghostnets.compress import reparameterize
from ghostnets.explain import (
    collect_cheap_kernels,
    collect_ghost_maps,
    count_ghosts,
    disable_ghosts,
    find_ghost_modules,
)
from ghostnets.measure import count
from ghostnets.serve import Settings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette says that it would rather have a successor of httpx
    from fastapi.testclient import TestClient

IMAGE = encoded(1, "PNG")
IMAGE_AS_TEXT = base64.b64encode(IMAGE).decode()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return write_checkpoint(folder / "net.safetensors", width=0.1, ratio=3)  # some of the last ghosts are cut off


@pytest.fixture(scope="module")
def client(checkpoint: Path) -> Iterator[TestClient]:
    with TestClient(create_app(checkpoint, Settings(threads=1, max_request_bytes=1_000_000))) as client:
        yield client


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> torch.nn.Module:
    return read_checkpoint(checkpoint).build()


def network_input() -> torch.Tensor:
    pixels = PREPROCESSING.pixels(io.BytesIO(IMAGE))
    return PREPROCESSING.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def without(
    client: TestClient, off: dict[str, list[int] | None], fill: str = "zeros"
) -> dict[str, tuple[float, float]]:
    question = {"image": IMAGE_AS_TEXT, "off": off, "fill": fill}
    answer = client.post("/v1/explain/without", json=question)
    assert answer.status_code == 200, answer.text
    return {row["class"]: (row["before"], row["after"]) for row in answer.json()["answers"]}


def test_the_outline_names_every_ghost_module(client: TestClient, network: torch.nn.Module):
    outline = client.get("/v1/explain").json()
    assert outline["absent"] is None
    shapes = count(network, (3, 32, 32)).output_shapes
    modules = find_ghost_modules(network)
    assert [layer["name"] for layer in outline["layers"]] == list(modules)
    for layer in outline["layers"]:
        assert (layer["intrinsic"] + layer["ghosts"], layer["height"], layer["width"]) == shapes[layer["name"]]
        assert layer["ghosts"] == count_ghosts(modules[layer["name"]])


def test_maps_are_those_of_the_network(client: TestClient, network: torch.nn.Module):
    kernels = {kernels.layer: kernels.kernels for kernels in collect_cheap_kernels(network)}
    was_cut = False
    for found in collect_ghost_maps(network, network_input())[:4]:
        answer = client.post("/v1/explain/maps", json={"image": IMAGE_AS_TEXT, "layer": found.layer}).json()
        pixels = np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8)
        pixels = pixels.reshape(-1, answer["height"], answer["width"])
        variances = [float(found.intrinsic[pair["intrinsic"]].var(correction=0)) for pair in answer["pairs"]]
        assert variances == sorted(variances, reverse=True)
        assert sorted(pair["intrinsic"] for pair in answer["pairs"]) == list(range(len(found.intrinsic)))
        numbers = [ghost["number"] for pair in answer["pairs"] for ghost in pair["ghosts"]]
        number = count_ghosts(network.get_submodule(found.layer))
        assert sorted(numbers) == list(range(number))
        was_cut |= number < found.ghosts.shape[0] * found.ghosts.shape[1]
        place = iter(pixels)
        for pair in answer["pairs"]:
            check_map(next(place), found.intrinsic[pair["intrinsic"]])
            for j, ghost in enumerate(pair["ghosts"]):
                assert ghost["number"] == pair["intrinsic"] * found.ghosts.shape[1] + j
                check_map(next(place), found.ghosts[pair["intrinsic"], j])
                torch.testing.assert_close(
                    torch.tensor(ghost["kernel"]), kernels[found.layer][pair["intrinsic"], j].flatten()
                )
        assert next(place, None) is None
    assert was_cut


def check_map(pixels: np.ndarray, values: torch.Tensor) -> None:
    low, high = values.min(), values.max()
    expected = (values - low) / (high - low) * 255 if high > low else torch.zeros_like(values)
    np.testing.assert_allclose(pixels, expected, atol=0.51)


@pytest.mark.parametrize("fill", ["zeros", "copies"])
def test_the_answer_without_ghosts_is_that_of_the_network(client: TestClient, network: torch.nn.Module, fill: str):
    first, *others = list(find_ghost_modules(network))[2:12]
    off: dict[str, list[int] | None] = {first: [0, 3], **dict.fromkeys(others)}
    x = network_input()
    with torch.inference_mode():
        plain = network(x)[0].softmax(0)
        with disable_ghosts(network, off, fill=fill):
            changed = network(x)[0].softmax(0)
    assert (plain - changed).abs().max() > 1e-3  # ten times what is asked for below
    answers = without(client, off, fill)
    for index, name in enumerate(NAMES):
        assert answers[name] == pytest.approx((float(plain[index]), float(changed[index])), abs=1e-4)
    assert without(client, {}) == {name: (p, p) for name, (p, _) in answers.items()}


def test_questions_at_one_time_do_not_meet(client: TestClient, network: torch.nn.Module):
    offs: list[dict[str, list[int] | None]] = [{name: None} for name in list(find_ghost_modules(network))[:4]]
    alone = [without(client, off) for off in offs]
    assert len({str(answer) for answer in alone}) > 1
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda i: without(client, offs[i % 4]), range(24)))
    assert together == [alone[i % 4] for i in range(24)]


def test_the_cost_is_counted_and_measured(client: TestClient, network: torch.nn.Module):
    cost = client.get("/v1/explain/cost").json()
    assert sum(layer["macs"] for layer in cost["layers"]) == count(network, (3, 32, 32)).macs
    assert all(layer["seconds"] > 0 for layer in cost["layers"])
    assert client.get("/v1/explain/cost").json() == cost  # measured once


@pytest.mark.parametrize(
    ("route", "question", "sentence"),
    [
        (
            "maps",
            {"image": IMAGE_AS_TEXT, "layer": "blocks.0.0.ghost7"},
            "did you mean blocks.0.0.ghost2 or blocks.0.0.ghost1",
        ),
        ("maps", {"image": "bm8gaW1hZ2U=", "layer": "blocks.0.0.ghost1"}, "cannot be read as an image"),
        ("maps", {"image": "%", "layer": "blocks.0.0.ghost1"}, "image is no standard base64"),
        ("maps", {"image": IMAGE_AS_TEXT}, "layer: Field required"),
        ("without", {"image": IMAGE_AS_TEXT, "off": {"blocks.0.0.ghost1": [-1]}}, "has no ghost -1"),
        ("without", {"image": IMAGE_AS_TEXT, "off": {}, "fill": "ones"}, "fill: Input should be"),
        ("without", {"image": IMAGE_AS_TEXT, "off": {}, "top": 0}, "top: Input should be"),
        ("without", "text", "the body: Input should be"),
    ],
)
def test_a_question_that_is_none_gets_a_sentence(client: TestClient, route: str, question: object, sentence: str):
    answer = client.post(f"/v1/explain/{route}", json=question)
    assert answer.status_code == 422
    with pytest.raises(AssertionError, match=sentence):  # match() of pytest tells what was there
        raise AssertionError(answer.json()["error"])


def test_a_question_of_many_values_is_counted_before_it_is_read(client: TestClient):
    body = b'{"image": "", "off": {"a": [' + b"[]," * 100_000 + b"[]]}}"
    answer = client.post("/v1/explain/without", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("the JSON holds some 200005 values, 50000 are allowed")


def test_of_many_problems_a_few_are_named(client: TestClient):
    off = {"a" * 300: 0} | {str(number): 0 for number in range(1000)}
    answer = client.post("/v1/explain/without", json={"image": "", "off": off})
    assert answer.status_code == 422
    assert f"off.{'a' * 196}...; off.0: Input should be" in answer.json()["error"]
    assert "; and 998 more; /openapi.json" in answer.json()["error"]


def test_a_long_name_is_cut(client: TestClient):
    answer = client.post("/v1/explain/maps", json={"image": IMAGE_AS_TEXT, "layer": "a" * 10_000})
    assert answer.status_code == 422
    assert len(answer.json()["error"]) < 1000


def test_too_many_questions_wait_for_none(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ghostnets.serve.explorer_routes.WAITING", 0)
    answer = client.get("/v1/explain/cost")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_branches_are_merged_as_in_the_service(tmp_path: Path):
    path = write_checkpoint(tmp_path / "v3.safetensors", "ghostnetv3_050", width=0.1)
    merged = reparameterize(read_checkpoint(path).build())
    with TestClient(create_app(path, Settings(threads=1))) as client:
        layer = client.get("/v1/explain").json()["layers"][0]["name"]
        answer = client.post("/v1/explain/maps", json={"image": IMAGE_AS_TEXT, "layer": layer})
        assert answer.status_code == 200, answer.text
        cost = client.get("/v1/explain/cost").json()
    assert sum(layer["macs"] for layer in cost["layers"]) == count(merged, (3, 32, 32)).macs


def test_a_network_without_ghosts_says_so(tmp_path: Path):
    path = write_checkpoint(tmp_path / "plain.safetensors", "resnet20")
    with TestClient(create_app(path, Settings(threads=1))) as client:
        outline = client.get("/v1/explain").json()
    assert outline == {
        "layers": [],
        "absent": "resnet20 has no Ghost modules, so there are no ghosts to explore.",
    }


def test_a_plan_says_what_to_serve_instead(tmp_path: Path):
    path = write_plan(tmp_path / "net.engine")
    sentence = (
        "The ghost explorer needs the network in PyTorch; serve the checkpoint itself: ghostnets serve CHECKPOINT."
    )
    with TestClient(create_app(path, Settings(threads=1))) as client:
        assert client.get("/v1/explain").json() == {"layers": [], "absent": sentence}
        question = {"image": IMAGE_AS_TEXT, "layer": "blocks.0.0.ghost1"}
        for answer in (client.get("/v1/explain/cost"), client.post("/v1/explain/maps", json=question)):
            assert (answer.status_code, answer.json()["error"]) == (404, sentence)
