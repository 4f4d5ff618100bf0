"""Routes, bodies and refusals, asked in this process; answers are those of the artefact, and fit the OpenAPI."""

import base64
import json
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running_service import NAMES, encoded, write_plan

import ghostnets
from ghostnets.artefacts import load_classifier
from ghostnets.errors import ArtefactError
from ghostnets.serve import Settings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette says that it would rather have a successor of httpx
    from fastapi.testclient import TestClient

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan") / "net.engine")


@pytest.fixture
def client(plan: Path) -> Iterator[TestClient]:
    with TestClient(create_app(plan, Settings(threads=1, max_images=4, max_request_bytes=100_000))) as client:
        yield client


def expected(plan: Path, content: bytes) -> dict[str, float]:
    """Class -> probability, from the artefact itself."""
    classifier = load_classifier(plan, threads=1)
    scores = classifier.run(classifier.read(content)[None]).scores
    return dict(zip(NAMES, scores[0].tolist(), strict=True))


def check(plan: Path, row: dict, content: bytes, top: int) -> None:
    right = expected(plan, content)
    best = sorted(right, key=right.__getitem__, reverse=True)[:top]
    assert [answer["class"] for answer in row["answers"]] == best
    np.testing.assert_allclose(
        [answer["probability"] for answer in row["answers"]], [right[n] for n in best], rtol=1e-5
    )
    assert row["error"] is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_one_image_as_it_is(client: TestClient, plan: Path, kind: str):
    content = encoded(1, kind)
    for content_type in ("image/whatever", "application/octet-stream"):
        answer = client.post("/v1/predict?top=2", content=content, headers={"content-type": content_type})
        assert answer.status_code == 200
        check(plan, answer.json()["images"][0], content, 2)


def test_a_form_with_files_one_of_which_is_none(client: TestClient, plan: Path):
    first, second = encoded(1), encoded(2, "PNG")
    files = [
        ("images", (name, content)) for name, content in (("a.jpg", first), ("b.txt", b"text"), ("c ü.png", second))
    ]
    answer = client.post("/v1/predict", files=files, data={"comment": "left out"})
    assert answer.status_code == 200
    rows = answer.json()["images"]
    assert [row["name"] for row in rows] == ["a.jpg", "b.txt", "c ü.png"]
    check(plan, rows[0], first, 3)
    check(plan, rows[2], second, 3)
    assert rows[1]["answers"] == []
    assert rows[1]["error"].startswith("b.txt cannot be read as an image")


def test_json_with_base64(client: TestClient, plan: Path):
    contents = [encoded(seed) for seed in range(3)]
    answer = client.post("/v1/predict?top=1", json={"images": [base64.b64encode(c).decode() for c in contents]})
    assert answer.status_code == 200
    for row, content in zip(answer.json()["images"], contents, strict=True):
        check(plan, row, content, 1)


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "sentence"),
    [
        (b"", JPEG, 422, "image 0 cannot be read as an image (the file is empty)"),
        (b"text", JPEG, 422, "image 0 cannot be read as an image"),
        (encoded()[:400], JPEG, 422, "image 0 cannot be read as an image"),
        (bomb(), JPEG, 422, "million pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", JPEG, 422, "none of JPEG, PNG"),
        (b"0" * 100_001, JPEG, 413, "larger than 100000 bytes"),
        (encoded(), {}, 415, "the content type is ''"),
        (encoded(), {"content-type": "text/plain"}, 415, "the content type is 'text/plain'"),
        (b"{", JSON, 400, "the JSON is not"),
        (b'{"images": []}', JSON, 400, "the JSON is not"),
        (b'{"images": ["aGk="], "more": 1}', JSON, 400, "the JSON is not"),
        (b'{"images": [1]}', JSON, 400, "the JSON is not"),
        (b"[" * 50_000, JSON, 400, "the JSON is not"),
        (b'{"images": [' + b"," * 60_000, JSON, 400, "some 60002 values, 50000 are allowed"),
        (b'{"images": ["\\u00e4"]}', JSON, 400, "image 0 is no base64"),
        (b'{"images": ["a"]}', JSON, 400, "image 0 is no base64"),
        (json.dumps({"images": ["aGk="] * 5}).encode(), JSON, 413, "holds 5 images, the limit is 4"),
        (b"x", {"content-type": "multipart/form-data"}, 400, "names no boundary"),
        (b"x", {"content-type": f"multipart/form-data; boundary={'b' * 5000}"}, 400, "the form cannot be read"),
        (b"x", FORM, 400, "the form cannot be read"),
        (b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx', FORM, 400, "breaks off"),
        (b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--\r\n', FORM, 400, "holds no image"),
        (
            b'--b\r\nContent-Disposition: form-data; filename="f"\r\n\r\nx\r\n' * 5 + b"--b--",
            FORM,
            413,
            "more than 4 files",
        ),
    ],
)
def test_a_body_that_is_none_is_refused(client: TestClient, content: bytes, headers: dict, status: int, sentence: str):
    answer = client.post("/v1/predict", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize("top", ["0", "-1", "1001", "x", "1e3", "9" * 5000])
def test_top_out_of_its_range_is_refused(client: TestClient, top: str):
    answer = client.post(f"/v1/predict?top={top}", content=encoded(), headers=JPEG)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("query.top")


def test_a_body_without_length_is_counted_as_it_comes(client: TestClient):
    answer = client.post("/v1/predict", content=iter([b"0" * 60_000] * 2), headers=JPEG)
    assert answer.status_code == 413


def test_other_routes(client: TestClient):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    about = client.get("/v1/model").json()
    assert (about["architecture"], about["class_names"]) == ("ghostnet_100", list(NAMES))
    for answer in (client.get("/v1/predict"), client.get("/v1/nothing"), client.delete("/healthz")):
        assert answer.status_code in (404, 405)
        assert "error" in answer.json()
    client.app.state.service.draining = True
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})


def test_no_answer_lets_a_browser_ask_elsewhere(client: TestClient):
    headers = client.get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_token(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "token").write_text("secret-1\n")
    with TestClient(create_app(plan, Settings(threads=1, token_file=tmp_path / "token"))) as client:
        for value in (None, "secret-1", "Bearer", "Bearer ", "Bearer secret-2", "Bearer secret-1x", "Basic secret-1"):
            headers = JPEG if value is None else {**JPEG, "authorization": value}
            answer = client.post("/v1/predict", content=encoded(), headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get("/metrics", headers=headers).status_code == 401
        headers = {**JPEG, "authorization": "bearer secret-1"}
        assert client.post("/v1/predict", content=encoded(), headers=headers).status_code == 200
        assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    monkeypatch.setenv("GHOSTNETS_TOKEN", "other")
    with TestClient(create_app(plan, Settings(threads=1))) as client:
        assert client.get("/v1/model").status_code == 401
        assert client.get("/v1/model", headers={"authorization": "Bearer other"}).status_code == 200


def test_metrics_count_by_route_and_never_by_what_a_client_wrote(client: TestClient):
    client.post("/v1/predict", content=encoded(), headers=JPEG)
    client.post("/v1/predict", content=b"x", headers=JPEG)
    for name in ("/secret-1", "/secret-2"):
        client.get(name)
    text = client.get("/metrics").text
    assert 'ghostnets_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'ghostnets_requests_total{route="/v1/predict",status="422"} 1.0' in text
    assert 'ghostnets_requests_total{route="other",status="404"} 2.0' in text
    assert 'ghostnets_images_total{outcome="unreadable"} 1.0' in text
    assert "ghostnets_batch_images_count 1.0" in text
    assert "secret" not in text


def test_an_artefact_that_cannot_be_used_is_one_sentence(tmp_path: Path):
    (tmp_path / "net.engine").write_bytes(b"no plan")
    app = create_app(tmp_path / "net.engine", Settings(threads=1))
    with pytest.raises(ArtefactError, match=r"net\.engine"), TestClient(app):
        pass


def test_the_openapi_describes_what_is_sent_and_answered(client: TestClient):
    from ghostnets.serve.schemas import Error, ModelInfo, Predictions

    description = client.get("/openapi.json").json()
    post = description["paths"]["/v1/predict"]["post"]
    kinds = {"image/*", "application/octet-stream", "multipart/form-data", "application/json"}
    assert set(post["requestBody"]["content"]) == kinds
    assert set(post["responses"]) == {"200", "400", "401", "408", "413", "415", "422", "429", "431"}
    schemas = description["components"]["schemas"]
    for status, answer in post["responses"].items():
        name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert name == ("Predictions" if status == "200" else "Error")
        assert name in schemas
    assert set(schemas["Answer"]["properties"]) == {"class", "probability"}
    Predictions.model_validate(client.post("/v1/predict", content=encoded(), headers=JPEG).json(), extra="forbid")
    Error.model_validate(client.post("/v1/predict", content=b"", headers=JPEG).json(), extra="forbid")
    ModelInfo.model_validate(client.get("/v1/model").json(), extra="forbid")


def test_serving_a_plan_loads_no_torch_and_asks_for_none():
    code = (
        "import sys, ghostnets.cli.serve, ghostnets.serve.app, ghostnets.serve.server; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    script = Path(ghostnets.__file__).parents[1] / "scripts" / "serving_requirements"
    names = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout.split()
    assert {"fastapi", "numpy", "pillow", "uvicorn"} <= {name.partition(">=")[0] for name in names}
    assert not [name for name in names if name.startswith(("torch", "huggingface"))]
