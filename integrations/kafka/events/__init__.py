"""The event log in Apache Kafka (`events.log.EventLog`)."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from errors import EventLogError
from integrations.kafka.connection import Connection, Mechanism, Tls
from integrations.kafka.events.log import KafkaEventLog
from settings import get_settings

_MECHANISMS: dict[str, Mechanism] = {each: each for each in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")}
_FILES = "ca", "certificate", "key"
_HINT = "kafka://user:password@host1:9092,host2:9092/topic?mechanism=SCRAM-SHA-512&tls=true&ca=authorities.pem"


def open_log(url: str) -> KafkaEventLog:
    """Opens the event log in a topic.

    Args:
        url: `kafka://host:9092,host:9092/topic`; with `user:password@` for SASL; `?mechanism=` is SASL's (PLAIN),
            `tls=true` asks for TLS, `ca=`, `certificate=` and `key=` name its PEM files; `timeout=` is how many
            seconds the brokers may be away (10) before a call fails.

    Raises:
        EventLogError: The URL is wrong, or the log cannot be opened.
    """
    parts = urlsplit(url)
    credentials, _, brokers = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    topic = parts.path.removeprefix("/")
    asked = dict(parse_qsl(parts.query))
    if unknown := asked.keys() - {"mechanism", "tls", "timeout", *_FILES}:
        raise _wrong(f"has an unknown parameter, {min(unknown)!r}")
    if not brokers or not re.fullmatch(r"[a-zA-Z0-9._-]{1,200}", topic):
        raise _wrong("names no brokers, or no topic")
    if (mechanism := _MECHANISMS.get(asked.get("mechanism", "PLAIN"))) is None:
        raise _wrong(f"has an unknown mechanism, {asked['mechanism']!r}")
    if not re.fullmatch(r"[1-9]\d{0,3}", timeout := asked.get("timeout", "10")):
        raise _wrong(f"has a timeout that is no number of seconds, {timeout!r}")
    secured = asked.get("tls") == "true" or any(name in asked for name in _FILES)
    files = {name: str(get_settings().path(asked[name])) for name in _FILES if name in asked}
    connection = Connection(
        brokers, unquote(user), unquote(password), mechanism, Tls(**files) if secured else None, timeout=float(timeout)
    )
    return KafkaEventLog(connection, topic, get_settings().path(f"data/kafka/{topic}.db"))


def _wrong(what: str) -> EventLogError:
    return EventLogError(f"the URL of the event log {what}", hint=f"PIVOTAL_EVENTS_URL={_HINT}")
