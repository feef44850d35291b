"""Logs as JSON lines on stderr: one object a line, with the fields that a message carries.

Knows logging; knows nothing of what is logged.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

FIELDS = "capfilt_fields"


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, and its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; texts of strangers cannot break out of it."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=True, default=str)


def fields(**values: Any) -> dict[str, Any]:
    """The ``extra`` of a log call that carries these fields."""
    return {FIELDS: values}


def to_stderr(level: int = logging.INFO) -> None:
    """Lets this program's own loggers and uvicorn's errors write JSON lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("capfilt", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True  # the app's own line says more
