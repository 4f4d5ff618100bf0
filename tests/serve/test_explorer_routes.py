"""Routes of the ghost explorer: responses match the network itself, errors are one sentence."""

import base64
import io
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from running_service import NAMES, PREPROCESSING, encode_image, write_checkpoint, write_plan

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
from ghostnets.serve import ServiceSettings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette recommends a successor of httpx
    from fastapi.testclient import TestClient

IMAGE = encode_image(1, "PNG")
IMAGE_AS_TEXT = base64.b64encode(IMAGE).decode()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return write_checkpoint(folder / "net.safetensors", width=0.1, ratio=3)  # not all of the last ghosts fit


@pytest.fixture(scope="module")
def client(checkpoint: Path) -> Iterator[TestClient]:
    with TestClient(create_app(checkpoint, ServiceSettings(threads=1, max_request_bytes=1_000_000))) as client:
        yield client


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> torch.nn.Module:
    return read_checkpoint(checkpoint).build()


def network_input() -> torch.Tensor:
    pixels = PREPROCESSING.pixels(io.BytesIO(IMAGE))
    return PREPROCESSING.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def ablate(client: TestClient, off: dict[str, list[int] | None], fill: str = "zeros") -> dict[str, tuple[float, float]]:
    body = {"image": IMAGE_AS_TEXT, "off": off, "fill": fill}
    response = client.post("/v1/explain/without", json=body)
    assert response.status_code == 200, response.text
    return {row["class"]: (row["before"], row["after"]) for row in response.json()["answers"]}


def test_explain_lists_all_ghost_modules(client: TestClient, network: torch.nn.Module):
    listing = client.get("/v1/explain").json()
    assert listing["absent"] is None
    shapes = count(network, (3, 32, 32)).output_shapes
    modules = find_ghost_modules(network)
    assert [layer["name"] for layer in listing["layers"]] == list(modules)
    for layer in listing["layers"]:
        assert (layer["intrinsic"] + layer["ghosts"], layer["height"], layer["width"]) == shapes[layer["name"]]
        assert layer["ghosts"] == count_ghosts(modules[layer["name"]])


def test_maps_match_network(client: TestClient, network: torch.nn.Module):
    kernels = {kernels.layer: kernels.kernels for kernels in collect_cheap_kernels(network)}
    was_cut = False
    for found in collect_ghost_maps(network, network_input())[:4]:
        response = client.post("/v1/explain/maps", json={"image": IMAGE_AS_TEXT, "layer": found.layer}).json()
        pixels = np.frombuffer(base64.b64decode(response["pixels"]), np.uint8)
        pixels = pixels.reshape(-1, response["height"], response["width"])
        variances = [float(found.intrinsic[pair["intrinsic"]].var(correction=0)) for pair in response["pairs"]]
        assert variances == sorted(variances, reverse=True)
        assert sorted(pair["intrinsic"] for pair in response["pairs"]) == list(range(len(found.intrinsic)))
        numbers = [ghost["number"] for pair in response["pairs"] for ghost in pair["ghosts"]]
        num_ghosts = count_ghosts(network.get_submodule(found.layer))
        assert sorted(numbers) == list(range(num_ghosts))
        was_cut |= num_ghosts < found.ghosts.shape[0] * found.ghosts.shape[1]
        remaining = iter(pixels)
        for pair in response["pairs"]:
            check_map(next(remaining), found.intrinsic[pair["intrinsic"]])
            for j, ghost in enumerate(pair["ghosts"]):
                assert ghost["number"] == pair["intrinsic"] * found.ghosts.shape[1] + j
                check_map(next(remaining), found.ghosts[pair["intrinsic"], j])
                torch.testing.assert_close(
                    torch.tensor(ghost["kernel"]), kernels[found.layer][pair["intrinsic"], j].flatten()
                )
        assert next(remaining, None) is None
    assert was_cut


def check_map(pixels: np.ndarray, values: torch.Tensor) -> None:
    low, high = values.min(), values.max()
    expected = (values - low) / (high - low) * 255 if high > low else torch.zeros_like(values)
    np.testing.assert_allclose(pixels, expected, atol=0.51)


@pytest.mark.parametrize("fill", ["zeros", "copies"])
def test_ablation_matches_network(client: TestClient, network: torch.nn.Module, fill: str):
    first, *others = list(find_ghost_modules(network))[2:12]
    off: dict[str, list[int] | None] = {first: [0, 3], **dict.fromkeys(others)}
    x = network_input()
    with torch.inference_mode():
        enabled = network(x)[0].softmax(0)
        with disable_ghosts(network, off, fill=fill):
            changed = network(x)[0].softmax(0)
    assert (enabled - changed).abs().max() > 1e-3  # ten times the tolerance below
    answers = ablate(client, off, fill)
    for index, name in enumerate(NAMES):
        assert answers[name] == pytest.approx((float(enabled[index]), float(changed[index])), abs=1e-4)
    assert ablate(client, {}) == {name: (p, p) for name, (p, _) in answers.items()}


def test_concurrent_requests_are_isolated(client: TestClient, network: torch.nn.Module):
    offs: list[dict[str, list[int] | None]] = [{name: None} for name in list(find_ghost_modules(network))[:4]]
    alone = [ablate(client, off) for off in offs]
    assert len({str(answer) for answer in alone}) > 1
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda i: ablate(client, offs[i % 4]), range(24)))
    assert together == [alone[i % 4] for i in range(24)]


def test_cost_matches_mac_count(client: TestClient, network: torch.nn.Module):
    cost = client.get("/v1/explain/cost").json()
    assert sum(layer["macs"] for layer in cost["layers"]) == count(network, (3, 32, 32)).macs
    assert all(layer["seconds"] > 0 for layer in cost["layers"])
    assert client.get("/v1/explain/cost").json() == cost  # measured once


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        (
            "maps",
            {"image": IMAGE_AS_TEXT, "layer": "blocks.0.0.ghost7"},
            "did you mean blocks.0.0.ghost2 or blocks.0.0.ghost1",
        ),
        ("maps", {"image": "bm8gaW1hZ2U=", "layer": "blocks.0.0.ghost1"}, "cannot be read as an image"),
        ("maps", {"image": "%", "layer": "blocks.0.0.ghost1"}, "image is not base64"),
        ("maps", {"image": IMAGE_AS_TEXT}, "layer: Field required"),
        ("without", {"image": IMAGE_AS_TEXT, "off": {"blocks.0.0.ghost1": [-1]}}, "has no ghost -1"),
        ("without", {"image": IMAGE_AS_TEXT, "off": {}, "fill": "ones"}, "fill: Input should be"),
        ("without", {"image": IMAGE_AS_TEXT, "off": {}, "top": 0}, "top: Input should be"),
        ("without", "text", "body: Input should be"),
    ],
)
def test_invalid_request_fails(client: TestClient, route: str, body: object, message: str):
    response = client.post(f"/v1/explain/{route}", json=body)
    assert response.status_code == 422
    assert message in response.json()["error"]


def test_request_with_too_many_values_fails_before_parsing(client: TestClient):
    body = b'{"image": "", "off": {"a": [' + b"[]," * 100_000 + b"[]]}}"
    response = client.post("/v1/explain/without", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"].startswith("the JSON has about 200005 values, the limit is 50000")


def test_error_names_first_problems_only(client: TestClient):
    off = {"a" * 300: 0} | {str(number): 0 for number in range(1000)}
    response = client.post("/v1/explain/without", json={"image": "", "off": off})
    assert response.status_code == 422
    assert f"off.{'a' * 196}...; off.0: Input should be" in response.json()["error"]
    assert "; and 998 more; see /openapi.json" in response.json()["error"]


def test_error_truncates_long_names(client: TestClient):
    response = client.post("/v1/explain/maps", json={"image": IMAGE_AS_TEXT, "layer": "a" * 10_000})
    assert response.status_code == 422
    assert len(response.json()["error"]) < 1000


def test_too_many_pending_requests_fail(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ghostnets.serve.explorer_routes.MAX_PENDING", 0)
    response = client.get("/v1/explain/cost")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")


def test_reparameterized_network_is_explored(tmp_path: Path):
    path = write_checkpoint(tmp_path / "v3.safetensors", "ghostnetv3_050", width=0.1)
    merged = reparameterize(read_checkpoint(path).build())
    with TestClient(create_app(path, ServiceSettings(threads=1))) as client:
        layer = client.get("/v1/explain").json()["layers"][0]["name"]
        response = client.post("/v1/explain/maps", json={"image": IMAGE_AS_TEXT, "layer": layer})
        assert response.status_code == 200, response.text
        cost = client.get("/v1/explain/cost").json()
    assert sum(layer["macs"] for layer in cost["layers"]) == count(merged, (3, 32, 32)).macs


def test_explorer_rejects_a_file_that_is_not_the_served_one(tmp_path: Path):
    path = write_checkpoint(tmp_path / "net.safetensors", width=0.1)
    with TestClient(create_app(path, ServiceSettings(threads=1))) as client:
        served = path.read_bytes()
        write_checkpoint(path, width=0.2)
        response = client.get("/v1/explain")
        assert (response.status_code, "was replaced after it was loaded" in response.json()["error"]) == (409, True)
        path.write_bytes(served[: len(served) // 2])
        response = client.get("/v1/explain")
        assert (response.status_code, "was changed after it was loaded" in response.json()["error"]) == (409, True)
        path.write_bytes(served)
        assert client.get("/v1/explain").status_code == 200


def test_network_without_ghost_modules(tmp_path: Path):
    path = write_checkpoint(tmp_path / "plain.safetensors", "resnet20")
    with TestClient(create_app(path, ServiceSettings(threads=1))) as client:
        listing = client.get("/v1/explain").json()
    assert listing == {
        "layers": [],
        "absent": "resnet20 has no Ghost modules, so there are no ghosts to explore.",
    }


def test_engine_plan_has_no_explorer(tmp_path: Path):
    path = write_plan(tmp_path / "net.engine")
    message = "The ghost explorer needs the network in PyTorch; serve the checkpoint: ghostnets serve CHECKPOINT."
    with TestClient(create_app(path, ServiceSettings(threads=1))) as client:
        assert client.get("/v1/explain").json() == {"layers": [], "absent": message}
        body = {"image": IMAGE_AS_TEXT, "layer": "blocks.0.0.ghost1"}
        for response in (client.get("/v1/explain/cost"), client.post("/v1/explain/maps", json=body)):
            assert (response.status_code, response.json()["error"]) == (404, message)
