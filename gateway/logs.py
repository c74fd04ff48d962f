"""One line for each thing that happens: time, level, logger, message, then `key=value` for programs to find."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

from events.cause import current_cause

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
_PLAIN = re.compile(r"[!#-<>-~]+")
"""Printable ASCII without space, `"` and `=`."""


def log_to_stderr() -> None:
    """Sends the process's log lines, from INFO on, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class LineFormatter(logging.Formatter):
    """Writes what was passed as `extra`, and the correlation id, behind the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback, if there is one, follows it."""
        extras = {name: value for name, value in vars(record).items() if name not in _OWN}
        if cause := current_cause():
            extras["correlation_id"] = cause.correlation_id
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        words = [at, record.levelname, record.name, record.getMessage()]
        words += [f"{name}={_quoted(value)}" for name, value in extras.items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: object) -> str:
    """As it is, if it is one plain word; else as a JSON string, which keeps it on the line."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
