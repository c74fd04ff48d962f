"""An event to test with. Light: child processes import it."""

from __future__ import annotations

from events.envelope import Event, Metadata, new_id


def event(key: str | None = None, *, kind: str = "test.happened", source: str = "test", **data: object) -> Event:
    """An event with this dedupe key."""
    return Event(
        type=kind,
        aggregate_type="thing",
        aggregate_id="1",
        data=data,
        metadata=Metadata(source=source, dedupe_key=key or new_id(), correlation_id="c"),
    )
