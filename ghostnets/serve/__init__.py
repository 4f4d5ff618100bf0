"""HTTP service for an artefact. Importing this package needs no extra; running it needs the extra ``serve``."""

from typing import TYPE_CHECKING

from ghostnets.errors import require
from ghostnets.serve.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastapi import APIRouter, FastAPI

__all__ = ["ServiceSettings", "create_app", "serve"]

LIBRARIES = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")


def create_app(
    path: "str | Path", settings: ServiceSettings | None = None, *, routers: "Sequence[APIRouter]" = ()
) -> "FastAPI":
    """Create the service as an ASGI application; the artefact is opened when the application starts.

    Args:
        path: Path of an artefact or checkpoint, as in ``artefacts.open_model``.
        settings: Limits of the service; its host and port are ignored here.
        routers: Additional routes, which find the ``Service`` in ``request.app.state.service``.

    Raises:
        MissingExtraError: The extra ``serve`` is not installed.
    """
    for library in LIBRARIES:
        require(library, extra="serve")
    from ghostnets.serve.app import build_app

    return build_app(path, settings or ServiceSettings(), routers)


def serve(path: "str | Path", settings: ServiceSettings) -> bool:
    """Serve until SIGTERM or Ctrl-C; accepted requests are answered before it returns, within ``drain_timeout``.

    Returns:
        Whether all work has ended. Otherwise threads still decode or run an image, and Python waits for them when the
        process ends, unless by ``os._exit``.

    Raises:
        GhostNetsError: The artefact cannot be opened, the address cannot be bound, or the extra ``serve`` is missing.
    """
    app = create_app(path, settings)
    from ghostnets.serve.server import run

    return run(app, settings)
