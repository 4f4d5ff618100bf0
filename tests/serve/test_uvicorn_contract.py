"""Interfaces of uvicorn that are not documented, on which ``protocol`` and ``server`` depend."""

import inspect

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ghostnets.serve.protocol import LimitedProtocol
from ghostnets.serve.server import Server

HOOKS = {
    LimitedProtocol: "connection_made data_received on_message_begin on_url on_header on_headers_complete "
    "on_response_complete connection_lost on_message_complete pause_writing resume_writing send_400_response",
    Server: "capture_signals on_tick shutdown",
}


@pytest.mark.parametrize("derived", HOOKS)
def test_overridden_methods_have_the_parameters_of_uvicorn(derived: type):
    base = derived.__mro__[1]
    assert base in (HttpToolsProtocol, uvicorn.Server)
    overridden = {name for name in vars(derived) if not name.startswith("__") and hasattr(base, name)}
    assert overridden == set(HOOKS[derived].split())
    for name in overridden:
        mine, theirs = (list(inspect.signature(getattr(c, name)).parameters) for c in (derived, base))
        assert mine == theirs, name


def test_names_that_the_service_reads_exist():
    assert STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")
    made = inspect.getsource(HttpToolsProtocol)
    for attribute in ("connections", "cycle", "loop", "parser", "pipeline", "transport"):
        assert f"self.{attribute}" in made, attribute
    cycle = inspect.getsource(RequestResponseCycle)
    for attribute in ("disconnected", "keep_alive", "message_event", "response_complete"):
        assert f"self.{attribute}" in cycle, attribute
    server = uvicorn.Server(uvicorn.Config(lambda: None))
    assert server.server_state.connections == set()
    assert server.should_exit is False
    assert callable(uvicorn.Config(lambda: None, loop="asyncio").get_loop_factory())
    assert "self.servers" in inspect.getsource(uvicorn.Server.startup)
