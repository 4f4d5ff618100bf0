"""The service with a segmentation network, tested in process: masks as the artefact finds them, also as tensors."""

import base64
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running_service import encode_image

from ghostnets.artefacts import SegmentedImage, load_segmenter
from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import class_color
from ghostnets.serve import ServiceSettings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette recommends a successor of httpx
    from fastapi.testclient import TestClient

NAMES = ("land", "water", "road")
PNG = {"content-type": "image/png"}
INFER = "/v2/models/fields/infer"


@pytest.fixture(scope="module")
def client(tiny_segmenter: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(threads=1, max_images=3, max_pixels=11_000)
    with TestClient(create_app(tiny_segmenter, settings)) as client:
        yield client


def coarse_image(seed: int, size: tuple[int, int] = (90, 60)) -> bytes:
    """Large squares, in which the network finds several classes."""
    squares = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8))
    content = io.BytesIO()
    squares.resize(size, Image.Resampling.NEAREST).save(content, "PNG")
    return content.getvalue()


def segment(segmenter: Path, content: bytes) -> SegmentedImage:
    found = load_segmenter(segmenter, threads=1)(content)
    assert len(found.shares) > 1
    return found


def check(row: dict, found: SegmentedImage) -> None:
    assert (row["width"], row["height"]) == found.size
    with Image.open(io.BytesIO(base64.b64decode(row["mask"]))) as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:9] == [value for label in range(3) for value in class_color(label)]
        assert np.array_equal(np.asarray(mask), found.mask)
    assert [one["class"] for one in row["classes"]] == list(found.shares)
    for one in row["classes"]:
        assert one["share"] == (found.mask == one["index"]).mean()
        assert NAMES[one["index"]] == one["class"]
        assert one["color"] == "#{:02x}{:02x}{:02x}".format(*class_color(one["index"]))
    assert row["error"] is None


def test_masks_are_those_of_the_artefact(client: TestClient, tiny_segmenter: Path):
    from ghostnets.serve.schemas import ModelInfo, PredictResponse

    first, second = coarse_image(1), coarse_image(2, (40, 80))
    files = [("images", (name, content)) for name, content in (("a.png", first), ("b.txt", b"text"), ("c.png", second))]
    response = client.post("/v1/predict", files=files)
    assert response.status_code == 200
    PredictResponse.model_validate(response.json(), extra="forbid")
    rows = response.json()["images"]
    check(rows[0], segment(tiny_segmenter, first))
    check(rows[2], segment(tiny_segmenter, second))
    assert (rows[1]["width"], rows[1]["mask"], rows[1]["classes"]) == (None, None, [])
    assert "cannot be read" in rows[1]["error"]
    (row,) = client.post("/v1/predict?top=1", content=first, headers=PNG).json()["images"]
    assert row["classes"] == rows[0]["classes"][:1]
    model = client.get("/v1/model").json()
    assert (model["task"], model["class_names"]) == ("segment", list(NAMES))
    ModelInfo.model_validate(model, extra="forbid")
    properties = client.get("/openapi.json").json()["components"]["schemas"]["ImageMaskInfo"]["properties"]
    assert set(properties) == set(row)


def test_tensor_of_classes(client: TestClient, tiny_segmenter: Path):
    assert client.get("/v2/models/fields").json()["outputs"] == [
        {"name": "classes", "datatype": "UINT8", "shape": [-1, -1, -1]}
    ]
    contents = [coarse_image(1), coarse_image(2)]
    data = [base64.b64encode(content).decode() for content in contents]
    request = {"inputs": [{"name": "images", "shape": [2], "datatype": "BYTES", "data": data}]}
    expected = np.stack([segment(tiny_segmenter, content).mask for content in contents])
    (output,) = client.post(INFER, json=request).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("UINT8", [2, 60, 90])
    assert output["data"] == expected.ravel().tolist()
    response = client.post(INFER, json=request | {"parameters": {"binary_data_output": True}})
    length = int(response.headers["inference-header-content-length"])
    (described,) = json.loads(response.content[:length])["outputs"]
    assert described["parameters"] == {"binary_data_size": expected.size}
    assert response.content[length:] == expected.tobytes()


@pytest.mark.parametrize(
    ("sizes", "options", "status", "message"),
    [
        ([(30, 20), (20, 30)], {}, 400, "the images have different sizes (30 x 20 and 20 x 30)"),
        ([(80, 70)] * 2, {}, 413, "the classes of 2 images have more than 11,000 pixels, the limit; split the request"),
        ([(30, 20)], {"outputs": [{"name": "probabilities"}]}, 400, "the model has classes"),
        (
            [(30, 20)],
            {"outputs": [{"name": "classes", "parameters": {"classification": 2}}]},
            400,
            "the parameter classification is for probabilities",
        ),
    ],
)
def test_requests_without_a_tensor_are_rejected(client: TestClient, sizes, options, status: int, message: str):
    data = [base64.b64encode(encode_image(size=size)).decode() for size in sizes]
    tensor = {"name": "images", "shape": [len(data)], "datatype": "BYTES", "data": data}
    response = client.post(INFER, json={"inputs": [tensor], **options})
    assert response.status_code == status
    assert message in response.json()["error"]


def test_options_and_routes_of_classifiers_are_rejected(client: TestClient, tiny_segmenter: Path):
    assert "the model is a segmentation network" in client.get("/v1/explain").json()["absent"]
    with (
        pytest.raises(ConfigurationError, match="is a segmentation network, for which there is no --threshold"),
        TestClient(create_app(tiny_segmenter, ServiceSettings(threads=1, threshold=0.5))),
    ):
        pass
