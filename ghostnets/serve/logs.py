"""The log: one JSON object a line on stderr, never with anything of an image."""

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["BlockHandler", "JsonFormatter", "log_as_json"]

STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "event": ..., and what was given as extra}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class BlockHandler(logging.Handler):
    """Keeps lines and writes them to stderr together: at ``flush``, at a warning, or when there are many.

    A write a request would hand the interpreter to the decoding threads each time, and wait to get it back.
    """

    MOST = 1000  # lines

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + "\n")
        if record.levelno >= logging.WARNING or len(self.lines) >= self.MOST:
            self.flush()

    def flush(self) -> None:
        """Writes what there is."""
        self.acquire()
        try:
            lines, self.lines = self.lines, []
            sys.stderr.write("".join(lines))
            sys.stderr.flush()
        finally:
            self.release()


def log_as_json() -> BlockHandler:
    """Sends the log of this process to stderr: the service's own from "info" on, of others errors alone.

    What libraries warn of is what clients send, who are told so; damaged files must not fill the log.

    Returns:
        What holds lines until ``flush`` is called, which the server does ten times a second; warnings do not wait.
    """
    block = BlockHandler()
    block.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[block], level=logging.ERROR, force=True)
    logging.captureWarnings(True)
    logging.getLogger("ghostnets.serve").setLevel(logging.INFO)
    return block
