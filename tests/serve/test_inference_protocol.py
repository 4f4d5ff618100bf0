"""The Open Inference Protocol, version 2: answers equal the artefact's, in JSON and binary; faults are 400."""

import base64
import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import python_examples
from running_service import NAMES, ServiceProcess, encode_image, write_plan

from ghostnets.artefacts import load_classifier
from ghostnets.serve import ServiceSettings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette recommends a successor of httpx
    from fastapi.testclient import TestClient

INFER = "/v2/models/net/infer"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan") / "net.engine")


@pytest.fixture(scope="module")
def client(plan: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(threads=1, max_images=4, max_request_bytes=300_000)
    with TestClient(create_app(plan, settings)) as client:
        yield client


@pytest.fixture(scope="module")
def expected(plan: Path) -> np.ndarray:
    """Probabilities of two images, (2, classes)."""
    classifier = load_classifier(plan, threads=1)
    return classifier.run(np.stack([classifier.read(encode_image(seed, "PNG")) for seed in (1, 2)])).scores


def files(*contents: bytes, **fields: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with binary files."""
    binary = b"".join(struct.pack("<I", len(content)) + content for content in contents)
    tensor = {"name": "images", "shape": [len(contents)], "datatype": "BYTES"}
    text = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(binary)}}], **fields}).encode()
    return text + binary, {"inference-header-content-length": str(len(text))}


def test_probes_and_metadata(client: TestClient, plan: Path):
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/net/ready"):
        assert client.get(path).status_code == 200
        assert client.head(path).status_code == 200
    metadata = client.get("/v2/models/net").json()
    (version,) = metadata["versions"]
    assert metadata["platform"] == load_classifier(plan, threads=1).model.runtime
    assert [(tensor["name"], tensor["datatype"]) for tensor in metadata["inputs"]] == [
        ("images", "BYTES"),
        ("pixels", "UINT8"),
    ]
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, len(NAMES)]}]
    assert client.get(f"/v2/models/net/versions/{version}").json() == metadata
    assert client.get("/v2/models/net/versions/1").status_code == 404
    assert client.get("/v2/models/other/ready").status_code == 404
    assert client.get(INFER).headers["allow"] == "POST"


def test_files_and_pixels_give_the_artefacts_probabilities(client: TestClient, expected: np.ndarray):
    contents = [encode_image(seed, "PNG") for seed in (1, 2)]
    body, headers = files(*contents, id="7")
    answer = client.post(INFER, content=body, headers=headers).json()
    (output,) = answer["outputs"]
    assert (answer["id"], answer["model_name"], output["shape"]) == ("7", "net", [2, len(NAMES)])
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, rtol=1e-5)
    texts = [base64.b64encode(content).decode() for content in contents]
    tensor = {"name": "images", "shape": [2], "datatype": "BYTES", "data": texts}
    assert client.post(INFER, json={"inputs": [tensor]}).json()["outputs"] == [output]


def test_binary_output_and_pixels(client: TestClient, plan: Path):
    images = np.random.default_rng(0).integers(256, size=(2, 40, 50, 3), dtype=np.uint8)
    classifier = load_classifier(plan, threads=1)
    expected = classifier.run(np.stack([classifier.read(image) for image in images])).scores
    tensor = {"name": "pixels", "shape": list(images.shape), "datatype": "UINT8"}
    request = {"inputs": [tensor | {"parameters": {"binary_data_size": images.size}}]}
    text = json.dumps(request | {"parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    response = client.post(INFER, content=text + images.tobytes(), headers=headers)
    length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(response.content) - length}
    got = np.frombuffer(response.content[length:], "<f4").reshape(output["shape"])
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    listed = client.post(INFER, json={"inputs": [tensor | {"shape": [1, 4, 4, 3], "data": images[0, :4, :4].tolist()}]})
    assert listed.status_code == 200


def test_classification_ranks_classes(client: TestClient, expected: np.ndarray):
    asked = {"name": "probabilities", "parameters": {"classification": 2, "binary_data": False}}
    body, headers = files(encode_image(1, "PNG"), outputs=[asked])
    (output,) = client.post(INFER, content=body, headers=headers).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    best = np.argsort(-expected[0])[:2]
    assert [text.split(":", 1)[1] for text in output["data"]] == [f"{index}:{NAMES[index]}" for index in best]


IMAGES = {"name": "images", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
PIXELS = {"name": "pixels", "shape": [1, 1, 1, 3], "datatype": "UINT8"}
BINARY = {"parameters": {"binary_data_size": 9}}


@pytest.mark.parametrize(
    ("request_json", "status", "message"),
    [
        ({}, 400, "inputs: Field required"),
        ({"inputs": []}, 400, "at least 1 item"),
        ({"inputs": [IMAGES, PIXELS]}, 400, "send one, images or pixels"),
        ({"inputs": [IMAGES | {"name": "x"}]}, 400, "there is no input 'x'"),
        ({"inputs": [IMAGES | {"datatype": "FP32"}]}, 400, "send BYTES of shape"),
        ({"inputs": [IMAGES | {"shape": [-1]}]}, 400, "send BYTES of shape"),
        ({"inputs": [IMAGES | {"shape": [10**30]}]}, 413, "the limit is 4"),
        ({"inputs": [IMAGES | {"shape": [2]}]}, 400, "are not 2 strings"),
        ({"inputs": [IMAGES | {"data": [7]}]}, 400, "are not 1 strings"),
        ({"inputs": [IMAGES | {"data": ["?"]}]}, 400, "is not base64"),
        ({"inputs": [IMAGES | {"data": None}]}, 400, "neither data nor binary_data_size"),
        ({"inputs": [IMAGES | BINARY]}, 400, "binary_data_size of images is 9, but 0 bytes"),
        ({"inputs": [PIXELS | {"data": [1, 2]}]}, 400, "are not numbers of shape"),
        ({"inputs": [PIXELS | {"data": [1, 2, 256]}]}, 400, "whole numbers from 0 to 255"),
        ({"inputs": [PIXELS | {"data": [1, 2, "x"]}]}, 400, "are not numbers of shape"),
        ({"inputs": [IMAGES], "outputs": [{"name": "x"}]}, 400, "there is no output 'x'"),
        ({"inputs": [IMAGES]}, 422, "image 0"),
    ],
)
def test_invalid_requests_are_rejected(client: TestClient, request_json: dict, status: int, message: str):
    response = client.post(INFER, json=request_json)
    assert response.status_code == status
    assert message in response.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "99999999"])
def test_wrong_length_of_the_json_is_rejected(client: TestClient, length: str):
    response = client.post(INFER, content=b"{}", headers={"inference-header-content-length": length})
    assert response.status_code == 400
    assert "must be the length of the JSON" in response.json()["error"]


@pytest.mark.parametrize("binary", [b"\1\0\0", b"\5\0\0\0abc", b"\1\0\0\0ab", b"\xff\xff\xff\xffab"])
def test_wrong_elements_are_rejected(client: TestClient, binary: bytes):
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(binary)}}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    response = client.post(INFER, content=text + binary, headers=headers)
    assert (response.status_code, "are not 1 elements" in response.json()["error"]) == (400, True)


@pytest.mark.parametrize("count", [-1, "x", 1.5, True])
def test_wrong_number_of_classes_is_rejected(client: TestClient, count: object):
    body, headers = files(
        encode_image(1, "PNG"), outputs=[{"name": "probabilities", "parameters": {"classification": count}}]
    )
    assert client.post(INFER, content=body, headers=headers).status_code == 400


def test_models_need_the_token(plan: Path, tmp_path: Path):
    (tmp_path / "token").write_text("secret")
    with TestClient(create_app(plan, ServiceSettings(threads=1, token_file=tmp_path / "token"))) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/net").status_code == 401
        assert client.get("/v2/models/net", headers={"authorization": "Bearer secret"}).status_code == 200


def test_triton_client_is_served(plan: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    with ServiceProcess(plan) as service:
        client = http.InferenceServerClient(f"127.0.0.1:{service.port}")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("net")
        assert client.get_model_metadata("net")["name"] == "net"
        contents = np.array([encode_image(seed, "PNG") for seed in (1, 2)], dtype=object)
        tensor = http.InferInput("images", [2], "BYTES")
        tensor.set_data_from_numpy(contents)
        for is_binary in (True, False):
            asked = [http.InferRequestedOutput("probabilities", binary_data=is_binary)]
            result = client.infer("net", [tensor], outputs=asked).as_numpy("probabilities")
            np.testing.assert_allclose(result, expected, rtol=1e-5)
        asked = [http.InferRequestedOutput("probabilities", class_count=1)]
        (best,) = client.infer("net", [tensor], outputs=asked).as_numpy("probabilities")[:1]
        assert best[0].decode().endswith(f":{expected[0].argmax()}:{NAMES[expected[0].argmax()]}")
        (tmp_path / "cat.jpg").write_bytes(contents[0])
        monkeypatch.chdir(tmp_path)
        (example,) = (code for _, code in python_examples("docs/serve.md") if "tritonclient" in code)
        names: dict[str, Any] = {}
        exec(example.replace(":8000", f":{service.port}").replace("print(", "probabilities = ("), names)
        np.testing.assert_allclose(names["probabilities"], expected[:1], rtol=1e-5)
