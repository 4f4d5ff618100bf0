"""What a service can be told, and the limits within which it stays whatever it is sent."""

import os
from dataclasses import dataclass
from pathlib import Path

from ghostnets.errors import ConfigurationError

__all__ = ["TOKEN_VARIABLE", "Settings"]

TOKEN_VARIABLE = "GHOSTNETS_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of ``ghostnets serve``; times are in seconds."""

    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 is every network it is in."""
    port: int = 8000
    """Port to listen on; 0 takes a free one, which the first line of the log names."""
    token_file: Path | None = None
    """A file with the token that clients must send (Authorization: Bearer ...); or set GHOSTNETS_TOKEN."""
    threads: int | None = None
    """Cores to use, by default all: so many networks of one thread each run side by side, and one more."""
    max_batch: int = 8
    """At most so many images go through a network together."""
    max_wait: float = 0.002
    """At most so long an image waits for others to go with it."""
    max_request_bytes: int = 20_000_000
    """Larger requests are refused (413)."""
    max_pixels: int = 25_000_000
    """Images of more pixels are refused (422); one of 25 million takes up to 300 MB while it is decoded."""
    max_images: int = 64
    """Requests with more images are refused (413)."""
    max_queue: int = 256
    """Images in the service at a time; further requests are told to come again (429)."""
    max_buffered_bytes: int = 512_000_000
    """Bytes of requests in memory at a time; further requests are told to come again (429)."""
    max_connections: int = 1024
    """Connections at a time; further ones are told to come again (429)."""
    head_timeout: float = 10
    """A request's line and headers must arrive within this time (408)."""
    body_timeout: float = 30
    """A request's body must arrive within this time (408), and an answer be taken within it."""
    drain_delay: float = 0
    """After SIGTERM: go on as before for so long, with /readyz at 503, until a load balancer has noticed."""
    drain_timeout: float = 30
    """After that: give up on what is not answered within this time."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError, which names every option that is out of its range."""
        least = {"port": 0, "max_wait": 0, "drain_delay": 0, "drain_timeout": 0}
        above_zero = ("max_batch", "max_request_bytes", "max_pixels", "max_images", "max_queue", "max_buffered_bytes")
        least |= dict.fromkeys((*above_zero, "max_connections", "threads"), 1)
        wrong = [
            f"{name} is {value}, the least is {minimum}"
            for name, minimum in least.items()
            if (value := getattr(self, name)) is not None and value < minimum
        ]
        wrong += [
            f"{name} is {getattr(self, name)}, it must be above 0"
            for name in ("head_timeout", "body_timeout")
            if getattr(self, name) <= 0
        ]
        if self.port > 65535:
            wrong.append(f"port is {self.port}, the most is 65535")
        if self.max_images > self.max_queue:
            wrong.append(f"max_images is {self.max_images}, which max_queue, {self.max_queue}, has no room for")
        if wrong:
            raise ConfigurationError("; ".join(wrong) + ".")

    def token(self) -> bytes | None:
        """The token that clients must send, or None where anyone may ask.

        Raises:
            ConfigurationError: ``token_file`` cannot be read, or the token is empty or cannot stand in a header.
        """
        if self.token_file is not None:
            try:
                text, source = self.token_file.read_text(encoding="ascii").strip(), f"{self.token_file}"
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"the token file {self.token_file} cannot be read ({error}); it holds the token in ASCII, one line."
                ) from error
        elif TOKEN_VARIABLE in os.environ:
            text, source = os.environ[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
        else:
            return None
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError(
                f"{source} holds no usable token; it must be printable ASCII without spaces, for example the output of"
                " 'openssl rand -hex 32'."
            )
        return text.encode("ascii")
