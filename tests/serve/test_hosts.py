"""The Host header: a loopback service answers loopback names only (DNS rebinding)."""

import asyncio
import json

import pytest

from ghostnets.serve.hosts import AllowedHosts
from ghostnets.serve.middleware import ServiceMiddleware
from ghostnets.serve.service import Service
from ghostnets.serve.settings import ServiceSettings

LOOPBACK = [b"localhost", b"LocalHost:8000", b"localhost.", b"a.localhost", b"127.0.0.1", b"127.0.0.1:80", b"127.8.8.8"]
LOOPBACK += [b"[::1]", b"[::1]:8000", b"[0:0:0:0:0:0:0:1]", b"[::ffff:127.0.0.1]:1"]
FOREIGN = [b"evil.example", b"localhost.evil.example:8000", b"127.0.0.1.evil.example", b"10.0.0.1", b"[::2]:8000", b""]
FOREIGN += [b"evil.example:localhost", b"localhost:evil", b"[::1].evil.example", b"notlocalhost", b"\xff"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1"])
def test_loopback_service_answers_loopback_names(address: str):
    hosts = AllowedHosts(address)
    assert [host for host in LOOPBACK if not hosts.accept(host)] == []
    assert [host for host in FOREIGN if hosts.accept(host)] == []


def test_given_names_are_answered_in_any_spelling():
    hosts = AllowedHosts("127.0.0.1", ["Box.example.", "[fe80::1]"])
    for host in (b"box.example", b"BOX.EXAMPLE.:8000", b"[fe80::1]:80", *LOOPBACK):
        assert hosts.accept(host)
    assert not any(map(hosts.accept, FOREIGN))


def test_other_addresses_answer_all_names_unless_some_are_given():
    assert all(map(AllowedHosts("0.0.0.0").accept, LOOPBACK + FOREIGN))
    restricted = AllowedHosts("::", ["box"])
    assert restricted.accept(b"box:8000")
    assert not restricted.accept(b"evil.example")


@pytest.mark.parametrize("headers", [[b"evil.example"], [b"localhost", b"evil.example"]])
def test_foreign_host_gets_421_before_the_token_is_checked(tmp_path, headers: list[bytes]):
    (tmp_path / "token").write_text("secret")
    service = Service(tmp_path / "net.engine", ServiceSettings(token_file=tmp_path / "token", threads=1))
    service.hosts = AllowedHosts("127.0.0.1")
    sent = []

    async def app(*_: object) -> None:
        pytest.fail("the application was reached")

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    pairs = [(b"host", name) for name in headers]
    scope = {"type": "http", "method": "GET", "path": "/v1/model", "headers": pairs}
    asyncio.run(ServiceMiddleware(app, service)(scope, receive, send))
    assert sent[0]["status"] == 421
    assert "--allow-host NAME" in json.loads(sent[1]["body"])["error"]
