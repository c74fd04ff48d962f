"""Looks for secrets in what is logged, in every test: whatever level, message, field or traceback it stands in."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

ROOMS = ("assets", "cli", "etl", "events", "gateway", "integrations", "projections", "resources", "sandbox", "sensors")

_SECRETS = {
    "a Stripe key": r"\b[sr]k_(test|live)_\w+",
    "a webhook's secret": r"\bwhsec_[\w+/=]+",
    "a SendGrid key": r"\bSG\.[\w.-]{4,}",
    "an AWS key": r"\bAKIA[0-9A-Z]+",
    "a card's number": r"\b4242 ?4242 ?4242 ?4242\b",
    "credentials": r"\b(Bearer|Basic) [\w+/=.-]{6,}",
    "the password of a URL": r"://[^/\s:@]*:[^/\s@]+@",
    "a database's password": r"correct-horse-battery",
}
_STANDARD = vars(logging.makeLogRecord({})).keys()


class _Reader(logging.Handler):
    """Remembers what it finds; not what was logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found += secrets_in(record)


def secrets_in(record: logging.LogRecord) -> list[str]:
    """Which secrets stand in a record's message, fields or traceback, and whose record it is."""
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    text = f"{logging.Formatter().format(record)} {fields}"
    return [f"{what} from {record.name}" for what, how in _SECRETS.items() if re.search(how, text)]


@contextmanager
def secrets_in_the_log() -> Iterator[list[str]]:
    """What is found while the block runs: which secret, and whose logger told it. Ours tell everything meanwhile."""
    reader, rooms = _Reader(), [logging.getLogger(room) for room in ROOMS]
    levels = [room.level for room in rooms]
    for room in rooms:
        room.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(reader)
    try:
        yield reader.found
    finally:
        logging.getLogger().removeHandler(reader)
        for room, level in zip(rooms, levels, strict=True):
            room.setLevel(level)
