"""Routes, request bodies and errors, tested in process: predictions match the artefact, responses the OpenAPI."""

import asyncio
import base64
import json
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from running_service import NAMES, encode_image, write_plan

from ghostnets.artefacts import load_classifier
from ghostnets.errors import ArtefactError, ConfigurationError, EngineError
from ghostnets.serve import ServiceSettings, create_app

pytest.importorskip("fastapi", reason="the service needs the extra 'serve'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette recommends a successor of httpx
    from fastapi.testclient import TestClient

from ghostnets.serve.middleware import ServiceMiddleware
from ghostnets.serve.service import Service

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan") / "net.engine")


@pytest.fixture
def client(plan: Path) -> Iterator[TestClient]:
    with TestClient(create_app(plan, ServiceSettings(threads=1, max_images=4, max_request_bytes=100_000))) as client:
        yield client


def expected_probabilities(plan: Path, content: bytes) -> dict[str, float]:
    """Return class -> probability, computed by the artefact itself."""
    classifier = load_classifier(plan, threads=1)
    scores = classifier.run(classifier.read(content)[None]).scores
    return dict(zip(NAMES, scores[0].tolist(), strict=True))


def check_prediction(plan: Path, row: dict, content: bytes, top: int) -> None:
    expected = expected_probabilities(plan, content)
    best = sorted(expected, key=expected.__getitem__, reverse=True)[:top]
    assert [answer["class"] for answer in row["answers"]] == best
    np.testing.assert_allclose(
        [answer["probability"] for answer in row["answers"]], [expected[n] for n in best], rtol=1e-5
    )
    assert row["error"] is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_predict_raw_image(client: TestClient, plan: Path, kind: str):
    content = encode_image(1, kind)
    for content_type in ("image/whatever", "application/octet-stream"):
        response = client.post("/v1/predict?top=2", content=content, headers={"content-type": content_type})
        assert response.status_code == 200
        check_prediction(plan, response.json()["images"][0], content, 2)


def test_predict_form_with_unreadable_file(client: TestClient, plan: Path):
    first, second = encode_image(1), encode_image(2, "PNG")
    files = [
        ("images", (name, content)) for name, content in (("a.jpg", first), ("b.txt", b"text"), ("c ü.png", second))
    ]
    response = client.post("/v1/predict", files=files, data={"comment": "ignored"})
    assert response.status_code == 200
    rows = response.json()["images"]
    assert [row["name"] for row in rows] == ["a.jpg", "b.txt", "c ü.png"]
    check_prediction(plan, rows[0], first, 3)
    check_prediction(plan, rows[2], second, 3)
    assert rows[1]["answers"] == []
    assert rows[1]["error"].startswith("b.txt cannot be read as an image")


def test_predict_json(client: TestClient, plan: Path):
    contents = [encode_image(seed) for seed in range(3)]
    response = client.post("/v1/predict?top=1", json={"images": [base64.b64encode(c).decode() for c in contents]})
    assert response.status_code == 200
    for row, content in zip(response.json()["images"], contents, strict=True):
        check_prediction(plan, row, content, 1)


def wrapped(text: str) -> str:
    return "\r\n".join(textwrap.wrap(text, 76)) + "\n"


@pytest.mark.parametrize(
    "encode",
    [
        lambda content: base64.b64encode(content).decode().rstrip("="),
        lambda content: base64.urlsafe_b64encode(content).decode(),
        lambda content: base64.urlsafe_b64encode(content).decode().rstrip("="),
        lambda content: wrapped(base64.b64encode(content).decode()),
        lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode(),
        lambda content: "DATA:image/jpeg;name=a.jpg;base64," + wrapped(base64.b64encode(content).decode()),
    ],
    ids=["unpadded", "urlsafe", "urlsafe-unpadded", "wrapped", "data-uri", "wrapped-data-uri"],
)
def test_predict_base64_variants(client: TestClient, plan: Path, encode: Callable[[bytes], str]):
    content = encode_image(5) + b"\xfb\xff"  # bytes after the end of the image that are -_8 in the URL-safe alphabet
    content += b"\0" * (1 - len(content) % 3)  # two padding characters
    response = client.post("/v1/predict?top=3", json={"images": [encode(content)]})
    assert response.status_code == 200, response.text
    check_prediction(plan, response.json()["images"][0], content, 3)


def bomb() -> bytes:
    """Return a PNG of a few bytes whose header declares 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"", JPEG, 422, "image 0 cannot be read as an image (the file is empty)"),
        (b"text", JPEG, 422, "image 0 cannot be read as an image"),
        (encode_image()[:400], JPEG, 422, "image 0 cannot be read as an image"),
        (bomb(), JPEG, 422, "million pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", JPEG, 422, "none of JPEG, PNG"),
        (b"0" * 100_001, JPEG, 413, "larger than 100000 bytes"),
        (encode_image(), {}, 415, "the content type is ''"),
        (encode_image(), {"content-type": "text/plain"}, 415, "the content type is 'text/plain'"),
        (b"{", JSON, 400, "the JSON is not"),
        (b'{"images": []}', JSON, 400, "the JSON is not"),
        (b'{"images": ["aGk="], "more": 1}', JSON, 400, "the JSON is not"),
        (b'{"images": [1]}', JSON, 400, "the JSON is not"),
        (b"[" * 50_000, JSON, 400, "the JSON is not"),
        (b'{"images": [' + b"," * 60_000, JSON, 400, "about 60002 values, the limit is 50000"),
        (b'{"images": ["\\u00e4"]}', JSON, 400, "image 0 is not base64"),
        (b'{"images": ["a"]}', JSON, 400, "image 0 is not base64"),
        (b'{"images": ["aGk====="]}', JSON, 400, "image 0 is not base64"),
        (b'{"images": ["aG=k"]}', JSON, 400, "image 0 is not base64"),
        (b'{"images": ["data:image/png,aGk="]}', JSON, 400, "the data URI does not contain ';base64,'"),
        (json.dumps({"images": ["aGk="] * 5}).encode(), JSON, 413, "contains 5 images, the limit is 4"),
        (b"x", {"content-type": "multipart/form-data"}, 400, "has no boundary"),
        (b"x", {"content-type": f"multipart/form-data; boundary={'b' * 5000}"}, 400, "the form cannot be parsed"),
        (b"x", FORM, 400, "the form cannot be parsed"),
        (
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx',
            FORM,
            400,
            "ends before its final boundary",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--\r\n', FORM, 400, "contains no image"),
        (
            b'--b\r\nContent-Disposition: form-data; filename="f"\r\n\r\nx\r\n' * 5 + b"--b--",
            FORM,
            413,
            "more than 4 files",
        ),
    ],
)
def test_predict_invalid_body_fails(client: TestClient, content: bytes, headers: dict, status: int, message: str):
    response = client.post("/v1/predict", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert message in response.json()["error"]


@pytest.mark.parametrize("top", ["0", "-1", "1001", "x", "1e3", "9" * 5000])
def test_predict_top_out_of_range_fails(client: TestClient, top: str):
    response = client.post(f"/v1/predict?top={top}", content=encode_image(), headers=JPEG)
    assert response.status_code == 422
    assert response.json()["error"].startswith("query.top")


def test_predict_chunked_body_over_limit_fails(client: TestClient):
    response = client.post("/v1/predict", content=iter([b"0" * 60_000] * 2), headers=JPEG)
    assert response.status_code == 413


def test_model_and_probe_routes(client: TestClient):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    about = client.get("/v1/model").json()
    assert (about["architecture"], about["class_names"]) == ("ghostnet_100", list(NAMES))
    client.app.state.service.draining = True
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "draining"})


GET_ROUTES = ("/", "/app.js", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/model", "/v1/explain")


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_returns_headers_of_get(client: TestClient, path: str):
    get, head = client.get(path), client.head(path)
    assert (get.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert path == "/metrics" or head.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize(
    ("path", "methods", "allow"),
    [
        *((path, ("POST", "PUT", "DELETE", "OPTIONS"), "GET, HEAD") for path in GET_ROUTES),
        ("/v1/predict", ("GET", "HEAD", "PUT", "OPTIONS"), "POST"),
        ("/v1/explain/maps", ("GET", "HEAD", "DELETE"), "POST"),
    ],
)
def test_wrong_method_returns_405_with_allow(client: TestClient, path: str, methods: tuple[str, ...], allow: str):
    for method in methods:
        response = client.request(method, path)
        assert (response.status_code, response.headers.get("allow")) == (405, allow), method
        assert method == "HEAD" or "error" in response.json()


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/predict/", "/nothing.js", "/page/app.js", "/../app.py"])
def test_unknown_path_returns_404(client: TestClient, path: str):
    for method in ("GET", "HEAD", "POST"):
        assert client.request(method, path).status_code == 404


def test_security_headers_restrict_page_to_own_origin(client: TestClient):
    headers = client.get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_token_required_for_api_and_metrics(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "token").write_text("secret-1\n")
    with TestClient(create_app(plan, ServiceSettings(threads=1, token_file=tmp_path / "token"))) as client:
        for value in (None, "secret-1", "Bearer", "Bearer ", "Bearer secret-2", "Bearer secret-1x", "Basic secret-1"):
            headers = JPEG if value is None else {**JPEG, "authorization": value}
            response = client.post("/v1/predict", content=encode_image(), headers=headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get("/metrics", headers=headers).status_code == 401
        headers = {**JPEG, "authorization": "bearer secret-1"}
        assert client.post("/v1/predict", content=encode_image(), headers=headers).status_code == 200
        assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    monkeypatch.setenv("GHOSTNETS_TOKEN", "other")
    with TestClient(create_app(plan, ServiceSettings(threads=1))) as client:
        assert client.get("/v1/model").status_code == 401
        assert client.get("/v1/model", headers={"authorization": "Bearer other"}).status_code == 200


def test_metrics_labels_exclude_client_input(client: TestClient):
    client.post("/v1/predict", content=encode_image(), headers=JPEG)
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


def test_invalid_artefact_fails_at_startup(tmp_path: Path):
    (tmp_path / "net.engine").write_bytes(b"not a plan")
    app = create_app(tmp_path / "net.engine", ServiceSettings(threads=1))
    with pytest.raises(ArtefactError, match=r"net\.engine"), TestClient(app):
        pass


def test_threshold_answers_none_of_these(plan: Path):
    def predict(threshold: float | None) -> dict:
        with TestClient(create_app(plan, ServiceSettings(threads=1, threshold=threshold))) as client:
            response = client.post("/v1/predict", content=encode_image(), headers=JPEG).json()
            PredictResponse.model_validate(response, extra="forbid")
            return response["images"][0]

    from ghostnets.serve.schemas import PredictResponse

    plain = predict(None)
    assert "answer" not in plain
    assert predict(1e-6)["answer"] == plain["answers"][0]["class"]
    assert predict(1.0)["answer"] == "none of these"
    with pytest.raises(ConfigurationError, match="threshold is 2, it must be a probability above 0 and at most 1"):
        ServiceSettings(threshold=2)


def test_openapi_matches_requests_and_responses(client: TestClient):
    from ghostnets.serve.schemas import ErrorResponse, ModelInfo, PredictResponse

    description = client.get("/openapi.json").json()
    post = description["paths"]["/v1/predict"]["post"]
    kinds = {"image/*", "application/octet-stream", "multipart/form-data", "application/json"}
    assert set(post["requestBody"]["content"]) == kinds
    assert set(post["responses"]) == {"200", "400", "401", "408", "413", "415", "421", "422", "429", "431"}
    schemas = description["components"]["schemas"]
    for status, response in post["responses"].items():
        name = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert name == ("PredictResponse" if status == "200" else "ErrorResponse")
        assert name in schemas
    assert set(schemas["ClassProbabilityInfo"]["properties"]) == {"class", "probability"}
    PredictResponse.model_validate(
        client.post("/v1/predict", content=encode_image(), headers=JPEG).json(), extra="forbid"
    )
    ErrorResponse.model_validate(client.post("/v1/predict", content=b"", headers=JPEG).json(), extra="forbid")
    ModelInfo.model_validate(client.get("/v1/model").json(), extra="forbid")


def test_serving_engine_plan_does_not_need_torch():
    code = (
        "import sys, ghostnets.cli.serve, ghostnets.serve.app, ghostnets.serve.server; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        EngineError("there is not enough memory for images of (8, 224, 224, 3); pass fewer."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
    ],
    ids=["python", "engine", "torch", "thread"],
)
def test_used_up_memory_is_503_with_retry_after(client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("of the library") from error

    monkeypatch.setattr(client.app.state.service, "check_capacity", fail)
    response = client.post("/v1/predict", content=encode_image(1), headers=JPEG)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "not enough memory" in response.json()["error"]


def test_close_gives_up_threads_that_exceed_the_timeout(plan: Path):
    service, goes_on = Service(plan, ServiceSettings(threads=1)), threading.Event()

    async def never() -> None:
        await asyncio.Event().wait()

    service.model = SimpleNamespace(unused=never, end=goes_on.wait)
    start = time.perf_counter()
    assert not asyncio.run(service.close(0.1))
    assert time.perf_counter() - start < 5
    goes_on.set()


def test_request_that_is_cancelled_while_draining_is_503(plan: Path):
    sent: list[dict] = []

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    async def send(message: dict) -> None:
        sent.append(message)

    middleware = ServiceMiddleware(cancelled, Service(plan, ServiceSettings(threads=1)))
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": []}
    asyncio.run(middleware(scope, None, send))
    assert sent[0]["status"] == 503
    assert b"send the request again" in sent[1]["body"]


@pytest.mark.parametrize(("is_complete", "status"), [(True, 200), (False, 499)])
def test_client_that_leaves_after_the_response_is_not_logged_as_gone(
    plan: Path, caplog: pytest.LogCaptureFixture, is_complete: bool, status: int
):
    async def respond(scope: dict, receive: Callable, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"page", "more_body": not is_complete})
        await receive()  # as Starlette's FileResponse does; uvicorn answers so from the last byte on

    async def receive() -> dict:
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with caplog.at_level("INFO", logger="ghostnets.serve.request"):
        asyncio.run(ServiceMiddleware(respond, Service(plan, ServiceSettings(threads=1)))(scope, receive, send))
    assert [record.status for record in caplog.records] == [status]
