"""Logging: one JSON object per line on stderr, never with image content."""

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["BufferedHandler", "JsonFormatter", "configure_logging"]

RECORD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as ``{"time": ..., "level": ..., "event": ..., **extra}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in RECORD_ATTRIBUTES}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class BufferedHandler(logging.Handler):
    """Buffers lines and writes them to stderr on ``flush``, on a warning, or when the buffer is full.

    A write per request would release the interpreter lock to the decoding threads each time, and wait to get it back.
    """

    CAPACITY = 1000  # lines

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + "\n")
        if record.levelno >= logging.WARNING or len(self.lines) >= self.CAPACITY:
            self.flush()

    def flush(self) -> None:
        """Write all buffered lines."""
        self.acquire()
        try:
            lines, self.lines = self.lines, []
            sys.stderr.write("".join(lines))
            sys.stderr.flush()
        finally:
            self.release()


def configure_logging() -> BufferedHandler:
    """Log as JSON to stderr: the service from level info, libraries from level error.

    Library warnings are mostly about damaged files that clients send; clients get them as errors, and they must not
    fill the log.

    Returns:
        The installed handler; the server flushes it ten times a second.
    """
    handler = BufferedHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.ERROR, force=True)
    logging.captureWarnings(True)
    logging.getLogger("ghostnets.serve").setLevel(logging.INFO)
    return handler
