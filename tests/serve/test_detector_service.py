"""The service with a detector, tested in process: boxes as the artefact finds them, limits, and what is rejected."""

import base64
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running_service import encode_image

from ghostnets.artefacts import load_detector
from ghostnets.serve import ServiceSettings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette recommends a successor of httpx
    from fastapi.testclient import TestClient

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def client(tiny_detector: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(threads=1, max_images=3, max_pixels=10_000, max_batch=4)
    with TestClient(create_app(tiny_detector, settings)) as client:
        yield client


def check(row: dict, content: bytes, detector: Path, top: int = 100) -> None:
    found = load_detector(detector, threads=1)(content)
    assert len(found.labels) > 3
    assert (row["width"], row["height"]) == found.size
    assert [one["class"] for one in row["objects"]] == list(found.classes[:top])
    np.testing.assert_allclose([one["score"] for one in row["objects"]], found.scores[:top], atol=1e-5)
    np.testing.assert_allclose([one["box"] for one in row["objects"]], found.boxes[:top], atol=0.02)
    assert row["error"] is None


def test_boxes_are_those_of_the_artefact(client: TestClient, tiny_detector: Path):
    content = encode_image(1, size=(90, 60))
    response = client.post("/v1/predict", content=content, headers=JPEG)
    assert response.status_code == 200
    check(response.json()["images"][0], content, tiny_detector)
    response = client.post("/v1/predict?top=2", content=content, headers=JPEG)
    check(response.json()["images"][0], content, tiny_detector, top=2)


def test_several_images_of_different_sizes_with_an_unreadable_one(client: TestClient, tiny_detector: Path):
    first, second = encode_image(2, size=(40, 80)), encode_image(3, "PNG", size=(70, 30))
    files = [("images", (name, content)) for name, content in (("a.jpg", first), ("b.txt", b"text"), ("c.png", second))]
    response = client.post("/v1/predict", files=files)
    assert response.status_code == 200
    rows = response.json()["images"]
    check(rows[0], first, tiny_detector)
    check(rows[2], second, tiny_detector)
    assert (rows[1]["width"], rows[1]["height"], rows[1]["objects"]) == (None, None, [])
    assert "cannot be read" in rows[1]["error"]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/predict", b"", 422),
        ("/v1/predict", b"text", 422),
        ("/v1/predict", encode_image()[:200], 422),
        ("/v1/predict", encode_image(size=(200, 60)), 422),  # too many pixels
        ("/v1/predict?top=0", encode_image(), 422),
        ("/v1/predict?top=many", encode_image(), 422),
    ],
)
def test_what_cannot_be_answered_is_an_error_of_the_client(client: TestClient, path: str, content: bytes, status: int):
    response = client.post(path, content=content, headers=JPEG)
    assert response.status_code == status
    assert response.json()["error"]


def test_model_metrics_and_description(client: TestClient):
    from ghostnets.serve.schemas import ModelInfo, PredictResponse

    model = client.get("/v1/model").json()
    assert model["task"] == "detect"
    assert model["class_names"] == ["fish", "shark"]
    ModelInfo.model_validate(model, extra="forbid")
    answer = client.post("/v1/predict", content=encode_image(), headers=JPEG).json()
    PredictResponse.model_validate(answer, extra="forbid")
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["ImageObjectsInfo"]["properties"]) == set(answer["images"][0])
    assert set(schemas["ObjectInfo"]["properties"]) == {"class", "score", "box"}
    assert 'ghostnets_images_total{outcome="answered"}' in client.get("/metrics").text


def test_tensors_of_objects(client: TestClient, tiny_detector: Path):
    outputs = client.get("/v2/models/fish").json()["outputs"]
    assert [(row["name"], row["datatype"], row["shape"]) for row in outputs] == [
        ("boxes", "FP32", [-1, 100, 4]),
        ("scores", "FP32", [-1, 100]),
        ("labels", "INT32", [-1, 100]),
        ("num_objects", "INT32", [-1]),
    ]
    contents = [encode_image(1, "PNG", size=(90, 60)), encode_image(3, "PNG", size=(70, 30))]
    data = [base64.b64encode(content).decode() for content in contents]
    request = {"inputs": [{"name": "images", "shape": [2], "datatype": "BYTES", "data": data}]}
    listed = client.post("/v2/models/fish/infer", json=request).json()["outputs"]
    response = client.post("/v2/models/fish/infer", json=request | {"parameters": {"binary_data_output": True}})
    start = int(response.headers["inference-header-content-length"])
    tensors = {}
    for row, one in zip(json.loads(response.content[:start])["outputs"], listed, strict=True):
        end = start + row["parameters"]["binary_data_size"]
        values = np.frombuffer(response.content[start:end], {"FP32": "<f4", "INT32": "<i4"}[row["datatype"]])
        np.testing.assert_allclose(values, one["data"], rtol=1e-6)
        tensors[row["name"]], start = values.reshape(row["shape"]), end
    assert start == len(response.content)
    detector = load_detector(tiny_detector, threads=1)
    for index, content in enumerate(contents):
        found, count = detector(content), tensors["num_objects"][index]
        assert count == len(found.labels) > 0
        np.testing.assert_allclose(tensors["boxes"][index, :count], found.boxes, atol=0.02)
        np.testing.assert_allclose(tensors["scores"][index, :count], found.scores, atol=1e-5)
        assert tensors["labels"][index, :count].tolist() == list(found.labels)
        assert (tensors["labels"][index, count:] == -1).all()
        assert not tensors["scores"][index, count:].any()
    (only,) = client.post("/v2/models/fish/infer", json=request | {"outputs": [{"name": "labels"}]}).json()["outputs"]
    assert only == listed[2]


def test_explorer_says_that_it_is_for_classifiers(client: TestClient):
    explained = client.get("/v1/explain").json()
    assert explained["layers"] == []
    assert "the model is a detector" in explained["absent"]
    for path in ("/v1/explain/maps", "/v1/explain/without"):
        assert client.post(path, json={}).status_code == 404


def test_threshold_of_the_service(tiny_detector: Path):
    content = encode_image(1, size=(90, 60))
    with TestClient(create_app(tiny_detector, ServiceSettings(threads=1, threshold=0.6, max_batch=1))) as client:
        row = client.post("/v1/predict", content=content, headers=JPEG).json()["images"][0]
    scores = [score for score in load_detector(tiny_detector, threads=1)(content).scores if score > 0.6]
    np.testing.assert_allclose([one["score"] for one in row["objects"]], scores, atol=1e-5)
