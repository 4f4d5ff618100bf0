"""Hostile requests: each function generates one from a seeded random generator."""

import base64
import io
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "SGI", "DIB")


def http(content_type: str, body: bytes, path: str = "/v1/predict", method: str = "POST", more: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    head += f"Content-Length: {len(body)}\r\n"
    return f"{head}{more}Connection: close\r\n\r\n".encode("latin-1") + body


def image(rng: random.Random, image_format: str | None = None) -> bytes:
    """Generate a small valid image file."""
    size = rng.randint(1, 80), rng.randint(1, 80)
    picture = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    stream = io.BytesIO()
    picture.save(stream, image_format or rng.choice(IMAGE_FORMATS))
    return stream.getvalue()


def truncated(rng: random.Random) -> bytes:
    content = image(rng)
    return http("image/jpeg", content[: rng.randrange(len(content))])


def damaged(rng: random.Random) -> bytes:
    content = bytearray(image(rng))
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return http("image/jpeg", bytes(content))


def noise(rng: random.Random) -> bytes:
    start = rng.choice(
        [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF", b"P6 ", b"8BPS", b""]
    )
    return http("application/octet-stream", start + rng.randbytes(rng.randint(0, 3000)))


def bomb(rng: random.Random) -> bytes:
    """Generate a PNG that declares many more pixels than it has bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    width, height = rng.choice(
        [(2**31 - 1, 2**31 - 1), (65_535, 65_535), (100_000, 1), (1, 40_000_000), (0, 5), (4000, 4000)]
    )
    header = (
        width.to_bytes(4, "big")
        + height.to_bytes(4, "big")
        + bytes([rng.choice([1, 8, 16]), rng.choice([0, 2, 6]), 0, 0, 0])
    )
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"0" * 5_000_000)) if rng.random() < 0.3 else b""
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
    return http("image/png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + data + chunk(b"IEND", b""))


def wrong_type(rng: random.Random) -> bytes:
    kinds = [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data",
        "image",
        "é/\xff",
        "multipart/form-data; boundary=",
        "application/json; charset=utf-16",
        "*/*",
        "a" * 20_000,
    ]
    return http(rng.choice(kinds), image(rng))


def malformed_json(rng: random.Random) -> bytes:
    valid = json.dumps({"images": [base64.b64encode(image(rng)).decode()]}).encode()
    bodies = [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"images":' * 3000,
        valid[: rng.randrange(len(valid))],
        b'{"images": "x"}',
        b"\xff\xfe",
        b'{"images": [null]}',
        b'{"images": ["%%%"]}',
        b"9" * 100_000,
        b'{"images": [' + b'"",' * 5000 + b'""]}',
        b'{"images": {}}',
        b'{"images": ["\\ud800"]}',
        b'{"images": []}',
        b"NaN",
        valid.replace(b"=", b""),
        b'{"a": 1, ' + valid[1:],
    ]
    return http("application/json", rng.choice(bodies))


def malformed_form(rng: random.Random) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n'
    valid = part % b"a.jpg" + image(rng) + b"\r\n--b--\r\n"
    bodies = [
        b"",
        valid[: rng.randrange(len(valid))],
        part % b"a" * 200 + b"--b--",
        valid.replace(b"\r\n", b"\n"),
        b"--b--\r\n",
        part % (b"a" * 5000) + b"x\r\n--b--\r\n",
        (part % b"../../etc/passwd") + b"x\r\n--b--\r\n",
        b"\r\n" * 5000 + valid,
        b"--b\r\n" + b"A: b\r\n" * 5000 + b"\r\nx\r\n--b--\r\n",
        part % b"\xff\0\x01" + b"\r\n--b--\r\n",
        rng.randbytes(500),
    ]
    return http("multipart/form-data; boundary=b", rng.choice(bodies))


def malformed_http(rng: random.Random) -> bytes:
    body = image(rng)
    return rng.choice(
        [
            rng.randbytes(200) + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"\0" * 100 + b"\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            http("image/jpeg", body, more="Upgrade: websocket\r\nConnection: Upgrade\r\n"),
            http("image/jpeg", body, more="Expect: 100-continue\r\n"),
            http("image/jpeg", body, path="/v1/predict?top=" + rng.choice(["0", "-1", "x", "%00", "1e9", "9" * 4000])),
            http(
                "image/jpeg",
                body,
                path=rng.choice(
                    [
                        "/%2e%2e/etc/passwd",
                        "/../../etc/passwd",
                        "/%ff%fe",
                        "//",
                        "/v1/predict/",
                        "/openapi.json",
                        "/?" + "a" * 9000,
                    ]
                ),
            ),
            http("image/jpeg", body, method=rng.choice(["GET", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "BREW"])),
            http("image/jpeg", body, more="Authorization: Bearer \xff\r\n"),
            http("image/jpeg", body, more="Content-Encoding: gzip\r\n"),
        ]
    )


def explorer_request(rng: random.Random) -> bytes:
    """Generate a request to the ghost explorer, for an existing or unknown layer."""
    picture = base64.b64encode(image(rng)).decode()
    layer = rng.choice(["blocks.0.0.ghost1", "", "a" * 100_000, "..", "\0", "blocks.0.0"])
    off = rng.choice(
        [
            {layer: None},
            {layer: [-1]},
            {layer: [0, 10**30]},
            {layer: list(range(10_000))},
            {layer: [[]]},
            [],
            "all",
            None,
        ]
    )
    bodies = [
        {"image": picture, "layer": layer},
        {"image": picture, "off": off},
        {"image": picture, "off": off, "fill": "ones", "top": 10**400},
        {"image": picture[: rng.randrange(len(picture))], "off": {}, "top": rng.choice([0, -1, 100, 101, "5", None])},
        {"image": None, "layer": None, "off": {str(number): number for number in range(20_000)}},
        [picture],
    ]
    path = rng.choice(["/v1/explain/maps", "/v1/explain/without", "/v1/explain/cost", "/v1/explain/"])
    content = json.dumps(rng.choice(bodies)).encode()
    return http("application/json", content[: rng.choice([None, rng.randrange(len(content))])], path)


def inference_request(rng: random.Random) -> bytes:
    """Generate a request of the Open Inference Protocol to the model ``net``, in which each part may be wrong."""

    def mostly(right: Any, *wrong: Any) -> Any:
        return right if rng.random() < 0.8 else rng.choice(wrong)

    content = mostly(image(rng), rng.randbytes(rng.randrange(200)))
    length = len(content) + mostly(0, -1, 1, 2**31)
    kind = rng.choice(["images", "pixels"])
    if kind == "images":
        binary = (length % 2**32).to_bytes(4, "little") + content
        tensor = {"datatype": "BYTES", "shape": mostly([1], [0], [-1], [2**62], [1, 1], [])}
    else:
        binary = rng.randbytes(mostly(18, 17, 0))
        tensor = {"datatype": "UINT8", "shape": mostly([1, 2, 3, 3], [2**40, 1, 1, 3], [1, 0, 0, 0], [1, 3, 3, 2])}
    size = mostly(len(binary), 0, -1, 2**40, "x", None)
    tensor |= {"name": kind, "parameters": {"binary_data_size": size}}
    if rng.random() < 0.2:
        tensor["data"] = rng.choice([[], ["x"], [[1, 2], 3], [1e400], [None], "x"])
    outputs = [{"name": "probabilities", "parameters": {"classification": mostly(1, -1, 2**70, "x", [])}}]
    inputs, asked = [tensor] * mostly(1, 0, 5), rng.choice([None, [], outputs])
    text = json.dumps({"inputs": inputs, "outputs": asked}).encode()
    announced = mostly(len(text), len(text) - 1, len(text) + 10**6, -1, "x")
    more = f"Inference-Header-Content-Length: {announced}\r\n"
    return http("application/octet-stream", text + binary, "/v2/models/net/infer", more=more)


def many_values(rng: random.Random) -> bytes:
    """Generate JSON with a validation error in every few bytes."""
    path, begin, value, end = rng.choice(
        [
            ("/v1/predict", b'{"images": [', b"0,", b"0]}"),
            ("/v1/explain/without", b'{"image": "", "off": {"a": [', b"[],", b"[]]}}"),
            ("/v1/explain/maps", b"{", b'"a":{},', b'"a": 0}'),
        ]
    )
    return http("application/json", begin + value * rng.choice([10_000, 2_000_000]) + end, path)


def huge_headers(rng: random.Random) -> bytes:
    length = rng.choice([33_000, 200_000, 1_000_000])
    return rng.choice(
        [
            b"GET /" + b"a" * length + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: " + b"a" * length + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (length // 6) + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"a" * length,
        ]
    )


def oversized_body(rng: random.Random) -> bytes:
    if rng.random() < 0.8:  # announced only
        return (
            b"POST /v1/predict HTTP/1.1\r\nContent-Type: image/jpeg\r\nContent-Length: 30000000\r\n\r\n" + b"0" * 1000
        )
    chunk = b"10000\r\n" + b"0" * 65536 + b"\r\n"
    return b"POST /v1/predict HTTP/1.1\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 320


COMMON: list[Callable[[random.Random], bytes]] = [
    truncated,
    damaged,
    noise,
    bomb,
    wrong_type,
    malformed_json,
    malformed_form,
    malformed_http,
    explorer_request,
    inference_request,
]
RARE: list[Callable[[random.Random], bytes]] = [huge_headers, oversized_body, many_values]
