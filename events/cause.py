"""Which cause the running code works for. Context variables carry it: through calls, tasks and `asyncio.to_thread`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from events.envelope import Event, new_id


class Cause(NamedTuple):
    """What the events that are made now belong to; the fields are those of `Metadata`."""

    correlation_id: str
    causation_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    trace_id: str | None = None

    @classmethod
    def of(cls, event: Event) -> Self:
        """The cause of what handling `event` sets off."""
        metadata = event.metadata
        return cls(metadata.correlation_id, event.id, metadata.user_id, metadata.organization_id, metadata.trace_id)


_cause: ContextVar[Cause | None] = ContextVar("cause", default=None)


def current_cause() -> Cause | None:
    """The cause that the running code works for, if there is one."""
    return _cause.get()


@contextmanager
def caused_by(cause: Cause) -> Iterator[None]:
    """Everything that is published inside the block is set off by `cause`."""
    token = _cause.set(cause)
    try:
        yield
    finally:
        _cause.reset(token)


def new_event(
    type: str,  # noqa: A002  (the envelope's own word)
    aggregate: tuple[str, str],
    data: Mapping[str, Any],
    *,
    source: str,
    dedupe_key: str | None = None,
    timestamp: datetime | None = None,
    version: int = 1,
) -> Event:
    """An event that knows its cause.

    Args:
        type: As in `Event`.
        aggregate: Its kind and id: ("subscription", "sub_1").
        data: As in `Event`.
        source: As in `Metadata`.
        dedupe_key: The producer's own id of it. Default: the event's id.
        timestamp: When it happened. Default: now.
        version: As in `Event`.

    Raises:
        pydantic.ValidationError: A value does not fit the envelope.
    """
    event_id = new_id()
    cause = current_cause() or Cause(correlation_id=event_id)
    return Event.model_validate(
        {
            "id": event_id,
            "type": type,
            "aggregate_type": aggregate[0],
            "aggregate_id": aggregate[1],
            "data": data,
            "timestamp": timestamp or datetime.now(UTC),
            "version": version,
            "metadata": {"source": source, "dedupe_key": dedupe_key or event_id, **cause._asdict()},
        }
    )
