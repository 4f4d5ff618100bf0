"""Tests with a real process and real sockets: limits for slow and greedy clients, overload, reload, draining."""

import contextlib
import json
import logging
import math
import platform
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace

import pytest
from running_service import ServiceProcess, encode_image, wait_until, write_plan

from ghostnets.cli.main import main
from ghostnets.serve import ServiceSettings

pytest.importorskip("uvicorn", reason="the service needs the extra 'serve'")
from uvicorn.protocols.http.flow_control import FlowControl

from ghostnets.serve.protocol import LimitedProtocol

POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan") / "net.engine")


def exchange(service: ServiceProcess, *parts: bytes, pause: float = 0) -> bytes:
    """Send the parts; return everything received until the service closes the connection."""
    with service.socket() as connection:
        with contextlib.suppress(BrokenPipeError):  # the service may close before all is sent
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        return receive_all(connection)


def receive_all(connection: socket.socket) -> bytes:
    """Return everything received until the peer closes the connection."""
    content = b""
    while block := connection.recv(65536):
        content += block
    return content


def test_slow_and_greedy_clients_are_disconnected(plan: Path):
    with ServiceProcess(plan, "--head-timeout=0.4", "--body-timeout=0.6", "--max-connections=3") as service:
        # Headers that arrive too slowly, that never end, and that are too large.
        assert exchange(service, b"GET /healthz HT").startswith(b"HTTP/1.1 408 ")
        assert exchange(service, b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000).startswith(b"HTTP/1.1 431 ")
        assert exchange(service, b"GET / HTTP/1.1\r\nA: " + b"a" * 33_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
        assert exchange(service, b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 431 ")
        # A body that stalls, with and without Content-Length, and one that drips.
        assert exchange(service, POST + b"Content-Length: 10\r\n\r\n12").startswith(b"HTTP/1.1 408 ")
        assert exchange(service, POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n12\r\n").startswith(b"HTTP/1.1 408 ")
        drips = [POST + b"Content-Length: 1000\r\n\r\n", *[b"1"] * 8]
        assert exchange(service, *drips, pause=0.1).startswith(b"HTTP/1.1 408 ")
        # Hundreds of pipelined requests whose responses are not read.
        before = service.open_sockets()
        with service.socket() as connection:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
            wait_until(lambda: b"HTTP/1.1 429 " in receive_all(connection))
        wait_until(lambda: service.open_sockets() == before)
        # Nothing at all, empty lines, and bytes that are not HTTP.
        assert exchange(service) == b""
        assert exchange(service, b"\r\n") == b""
        assert exchange(service, b"\x16\x03\x01\x02\x00\x01").startswith(b"HTTP/1.1 400 ")
        # One connection above the limit.
        held = [service.socket() for _ in range(3)]
        wait_until(lambda: b"429" in exchange(service))
        late = exchange(service, b"POST / HTTP/1.1\r\n", b"a" * 100_000, b"a" * 100_000, pause=0.2)
        assert late.startswith(b"HTTP/1.1 429 ")  # also read by a client that sends before it reads
        for connection in held:
            connection.close()
        wait_until(lambda: service.request("GET", "/healthz")[0] == 200)
        assert service.stop() == 0
    assert not [event for event in service.events if event["level"] == "error"]
    slow = [event["status"] for event in service.events if event.get("path") == "/v1/predict"]
    assert slow == [408] * 3  # as answered; they were logged as clients that left


def test_client_that_goes_on_sending_after_a_rejection_reads_it(plan: Path):
    """A connection that is closed with unread input is reset, and the response lost."""
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n"
    with ServiceProcess(plan) as service, service.socket() as connection:
        connection.sendall(chunked)
        time.sleep(0.2)
        connection.sendall(bytes(8_000_000))
        response = receive_all(connection)
    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.endswith(b'send HTTP/1.1."}')
    assert [event["status"] for event in service.events if event.get("path") == "/v1/predict"] == [400]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_of_large_requests_is_given_back(plan: Path):
    """Text of 16 MB, from which several arrays of that size are made, in any of the threads."""
    bits, numbers = b"P1 4000 4000\n" + b"1" * 16_000_000, b"P3 1600 1600 255\n" + b"9 " * 7_680_000
    with ServiceProcess(plan, "--threads=3") as service:
        assert service.request("POST", "/v1/predict", encode_image())[0] == 200
        before = service.resident_bytes()
        for body in (numbers, bits) * 3:
            assert service.request("POST", "/v1/predict", body)[0] == 200
        assert service.resident_bytes() - before < 130_000_000  # 71 MB; by glibc's default 254


def test_used_up_memory_while_a_request_arrives_is_503():
    protocol = object.__new__(LimitedProtocol)
    protocol.parser_error, sent = 400, []
    protocol.send_error = lambda status, _, discard: sent.append((status, discard))  # type: ignore[method-assign]
    for error in (ValueError(), MemoryError()):
        try:
            raise RuntimeError from error
        except RuntimeError:
            protocol.send_400_response("")
    assert sent == [(400, True), (503, True)]


def test_expire_aborts_unread_response():
    protocol = LimitedProtocol.__new__(LimitedProtocol)
    calls = SimpleNamespace(is_closing=lambda: False, abort=lambda: aborted.append(1), time=lambda: 100.0)
    aborted: list[int] = []
    protocol.settings, protocol.loop, protocol.transport, protocol.flow = (
        ServiceSettings(body_timeout=3),
        calls,
        calls,
        FlowControl(calls),
    )
    protocol.read_deadline = math.inf
    protocol.pause_writing()
    protocol.expire(102.9)
    assert aborted == []
    protocol.expire(103.1)
    assert aborted == [1]
    protocol.resume_writing()
    protocol.expire(1000)
    assert aborted == [1]


def test_overload_returns_429_and_recovers(plan: Path):
    with ServiceProcess(plan, "--max-queue=2", "--max-images=2") as service:
        content = encode_image(size=(2000, 1500))  # slow to decode
        statuses: Counter[int] = Counter()
        headers = []

        def client() -> None:
            connection = service.connect()
            for _ in range(6):
                connection.request("POST", "/v1/predict", content, {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                answer.read()
                statuses[answer.status] += 1
                if answer.status == 429:
                    headers.append(answer.getheader("Retry-After"))
            connection.close()

        clients = [threading.Thread(target=client) for _ in range(8)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert set(statuses) == {200, 429}
        assert set(headers) == {"1"}
        assert service.request("POST", "/v1/predict", content)[0] == 200
        assert b"ghostnets_images_in_service 0.0" in service.request("GET", "/metrics")[1]


def test_reload_under_load_drops_no_request_and_rejects_broken_file(plan: Path, tmp_path: Path):
    served = tmp_path / "net.engine"
    served.write_bytes(plan.read_bytes())
    other = write_plan(tmp_path / "other.engine", seed=1, names=("x", "y", "z", "w"))
    with ServiceProcess(served) as service:
        answers: list[tuple[int, str, str]] = []
        stop = threading.Event()

        def client() -> None:
            while not stop.is_set():
                status, answer = service.request("POST", "/v1/predict?top=1", encode_image(size=(300, 300)))
                answers.append((status, answer.get("model"), answer["images"][0]["answers"][0]["class"]))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        service.signal(signal.SIGHUP)
        old = service.wait_for("model reloaded")["model"]  # the same file again
        other.replace(served)
        service.signal(signal.SIGHUP)
        new = service.wait_for("model reloaded")["model"]
        served.write_bytes(b"broken")
        service.signal(signal.SIGHUP)
        assert "net.engine" in service.wait_for("reload rejected, the old model stays")["error"]
        count = len(answers)
        wait_until(lambda: len(answers) > count + 8)
        stop.set()
        for thread in clients:
            thread.join()
        assert {status for status, _, _ in answers} == {200}
        assert {model for _, model, _ in answers} == {old, new} != {old}
        assert all(name in "abcanteecat" if model == old else name in "xyzw" for _, model, name in answers)
        assert answers[-1][1] == new
        assert service.request("GET", "/v1/model")[1]["class_names"] == ["x", "y", "z", "w"]


def test_sigterm_answers_open_connections(plan: Path):
    with ServiceProcess(plan, "--drain-delay=0.5") as service:
        content = encode_image(size=(1500, 1500))
        idle, partial = service.connect(), service.socket()
        idle.request("GET", "/healthz")
        assert idle.getresponse().read() == b'{"status":"ok"}'
        partial.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(content) + content[:1000])
        service.signal(signal.SIGTERM)
        wait_until(lambda: service.request("GET", "/readyz")[0] == 503)
        assert (
            service.request("POST", "/v1/predict", content)[0] == 200
        )  # new connections are accepted during the delay
        time.sleep(0.6)
        with pytest.raises(ConnectionRefusedError):
            service.socket()
        partial.sendall(content[1000:])
        head, _, body = receive_all(partial).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in head
        assert len(json.loads(body)["images"][0]["answers"]) == 3
        idle.request("GET", "/readyz")
        answer = idle.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (503, "close")
        partial.close()
        assert service.wait() == 0
    assert service.events[-1]["event"] == "stopped"


def test_sigterm_under_load_loses_no_request(plan: Path):
    content = encode_image(size=(600, 400))
    lost: list[Exception] = []
    answered: Counter[int] = Counter()
    with ServiceProcess(plan) as service:

        def client() -> None:
            while True:
                connection = service.connect()
                try:
                    connection.connect()
                except OSError:
                    return  # not listening any more: nothing was accepted
                try:
                    is_last = False
                    while not is_last:
                        connection.request("POST", "/v1/predict", content, {"Content-Type": "image/jpeg"})
                        answer = connection.getresponse()
                        answer.read()
                        answered[answer.status] += 1
                        is_last = answer.getheader("Connection") == "close"
                except (OSError, HTTPException) as error:
                    lost.append(error)
                    return
                finally:
                    connection.close()

        clients = [threading.Thread(target=client) for _ in range(16)]
        for thread in clients:
            thread.start()
        wait_until(lambda: answered[200] > 50)
        assert service.stop() == 0
        for thread in clients:
            thread.join()
    assert lost == []
    assert set(answered) == {200}


def test_log_is_json_without_image_content(plan: Path):
    with ServiceProcess(plan) as service:
        service.request("POST", "/v1/predict?top=1", b"not an image, but a secret")
        service.stop()
    line = next(event for event in service.events if event["event"] == "request")
    assert (line["method"], line["path"], line["status"], line["images"], line["bytes"]) == (
        *("POST", "/v1/predict", 422, 1, 26),
    )
    assert "secret" not in json.dumps(service.events)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restore the logging configuration, which the command replaces for its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_startup_errors(plan: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", str(plan.with_name("none.engine")), "--port", "0"]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(plan), "--port", "0", "--max-batch", "0", "--threads", "0"])
    with ServiceProcess(plan) as service:
        assert main(["serve", str(plan), "--port", str(service.port)]) == 1
    stderr = capsys.readouterr().err
    assert "there is no file" in stderr
    assert "threads is 0, the minimum is 1; max_batch is 0" in stderr
    assert f"cannot listen on 127.0.0.1:{service.port}" in stderr
