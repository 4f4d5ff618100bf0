"""An HTTP service in front of an artefact. Importing it needs nothing of the extra ``serve``; running it does."""

from typing import TYPE_CHECKING

from ghostnets.errors import require
from ghostnets.serve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastapi import APIRouter, FastAPI

__all__ = ["Settings", "create_app", "serve"]

LIBRARIES = ("fastapi", "uvicorn", "httptools", "uvloop", "python_multipart", "prometheus_client")


def create_app(
    path: "str | Path", settings: Settings | None = None, *, routers: "Sequence[APIRouter]" = ()
) -> "FastAPI":
    """The service as an ASGI application; the artefact is opened when the application starts.

    Args:
        path: What ``artefacts.open_model`` takes.
        settings: Limits; the address in it is not used here.
        routers: More routes. They find the ``Service`` in ``request.app.state.service``.

    Raises:
        MissingExtraError: The extra ``serve`` is not installed.
    """
    for library in LIBRARIES:
        require(library, extra="serve")
    from ghostnets.serve.app import build_app

    return build_app(path, settings or Settings(), routers)


def serve(path: "str | Path", settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C, and answers what it has accepted before it returns.

    Raises:
        GhostNetsError: The artefact cannot be opened, the address cannot be had, or the extra ``serve`` is missing.
    """
    app = create_app(path, settings)
    from ghostnets.serve.server import run

    run(app, settings)
