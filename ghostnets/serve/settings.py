"""Options and limits of the service."""

import os
from dataclasses import dataclass
from pathlib import Path

from ghostnets.errors import ConfigurationError

__all__ = ["TOKEN_VARIABLE", "ServiceSettings"]

TOKEN_VARIABLE = "GHOSTNETS_TOKEN"

MINIMUM = {
    "port": 0,
    "threads": 1,
    "max_batch": 1,
    "max_wait": 0,
    "max_request_bytes": 1,
    "max_pixels": 1,
    "max_images": 1,
    "max_queue": 1,
    "max_buffered_bytes": 1,
    "max_connections": 1,
    "drain_delay": 0,
    "drain_timeout": 0,
}
POSITIVE = ("head_timeout", "body_timeout")
MAX_PORT = 65535
PRECISIONS = ("auto", "f32", "bf16", "int8")


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Options of ``ghostnets serve``; times are in seconds."""

    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all its networks."""
    allow_host: tuple[str, ...] = ()
    """Names under which clients reach the service (their Host header), beside localhost and its addresses: needed for
    127.0.0.1 behind a proxy. By default, a service on another address than 127.0.0.1 accepts every name."""
    port: int = 8000
    """Port to listen on; 0 selects a free one and logs it."""
    token_file: Path | None = None
    """File with the token that clients must send (Authorization: Bearer ...); or set GHOSTNETS_TOKEN."""
    threads: int | None = None
    """Number of cores to use, all by default. One single-threaded copy of the network runs per core, plus one."""
    device: str = "cpu"
    """Device of a checkpoint: cpu, cuda, mps, xpu, cuda:1, or auto for an accelerator if there is one."""
    precision: str = "auto"
    """Precision in the engine: auto, f32, bf16 or int8. auto is f32 for a checkpoint; for an engine plan, the
    fastest on this machine, measured once, of those no less precise than its own."""
    threshold: float | None = None
    """Lowest probability of the first class for which it is the answer of an image; else it is "none of these". Of a
    detector, the score that an object must exceed, 0.3 by default."""
    max_batch: int = 8
    """Maximum number of images per batch."""
    max_wait: float = 0.002
    """Maximum time that an image waits for its batch to fill."""
    max_request_bytes: int = 20_000_000
    """Maximum size of a request body (413)."""
    max_pixels: int = 25_000_000
    """Maximum number of pixels per image (422); decoding 25 million takes up to 300 MB."""
    max_images: int = 64
    """Maximum number of images per request (413)."""
    max_queue: int = 256
    """Maximum number of images in the service at a time (429)."""
    max_buffered_bytes: int = 512_000_000
    """Maximum size of all request bodies in memory (429)."""
    max_connections: int = 1024
    """Maximum number of open connections (429)."""
    head_timeout: float = 10
    """Time for a client to send the request line and headers (408)."""
    body_timeout: float = 30
    """Time for a client to send the body (408), and to receive the response."""
    drain_delay: float = 0
    """Time to keep serving after SIGTERM, with /readyz at 503, until load balancers notice."""
    drain_timeout: float = 30
    """Time after drain_delay to finish open requests before they are dropped."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming all options that are out of range."""
        problems = [
            f"{name} is {value}, the minimum is {minimum}"
            for name, minimum in MINIMUM.items()
            if (value := getattr(self, name)) is not None and value < minimum
        ]
        problems += [
            f"{name} is {getattr(self, name)}, it must be above 0" for name in POSITIVE if getattr(self, name) <= 0
        ]
        if self.precision not in PRECISIONS:
            problems.append(f"precision is {self.precision!r}, it must be one of {', '.join(PRECISIONS)}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            problems.append(f"threshold is {self.threshold}, it must be a probability above 0 and at most 1")
        if self.port > MAX_PORT:
            problems.append(f"port is {self.port}, the maximum is {MAX_PORT}")
        if self.max_images > self.max_queue:
            problems.append(f"max_images is {self.max_images}, above max_queue, which is {self.max_queue}")
        if problems:
            raise ConfigurationError("; ".join(problems) + ".")

    def token(self) -> bytes | None:
        """Read the token that clients must send; None if no token is required.

        Raises:
            ConfigurationError: ``token_file`` cannot be read, or the token is empty or not valid in a header.
        """
        if self.token_file is not None:
            try:
                text, source = self.token_file.read_text(encoding="ascii").strip(), f"{self.token_file}"
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"the token file {self.token_file} cannot be read ({error}); it must contain one line of ASCII."
                ) from error
        elif TOKEN_VARIABLE in os.environ:
            text, source = os.environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
        else:
            return None
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError(
                f"{source} contains no valid token; it must be printable ASCII without spaces, for example the output"
                " of 'openssl rand -hex 32'."
            )
        return text.encode("ascii")
