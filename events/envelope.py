"""The envelope that every event travels in. Maps 1:1 to CloudEvents 1.0 (`to_cloudevent`, `from_cloudevent`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import uuid_utils
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


def new_id() -> str:
    """A UUIDv7: unique, and sorted by the time it was made (RFC 9562)."""
    return str(uuid_utils.uuid7())


class Metadata(BaseModel):
    """Who caused an event, and what else it belongs to.

    Args:
        source: Where the event comes from: `stripe`, `sendgrid`, `pivotal/etl`.
        dedupe_key: The producer's own id of the event; (source, dedupe_key) is accepted once.
        correlation_id: The same on everything that one cause set off.
        causation_id: The id of the event that led to this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    dedupe_key: str
    correlation_id: str
    causation_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    trace_id: str | None = None


class Event(BaseModel):
    """Something that happened.

    Args:
        type: `stripe.invoice.paid`, `pivotal.pipeline.completed`: dotted, source first.
        aggregate_type: The kind of thing it happened to: `subscription`.
        aggregate_id: Which one; events of one aggregate are handled in order.
        data: What happened, as JSON.
        id: UUIDv7.
        timestamp: When it happened (not when it was received).
        version: Version of `data`'s shape.
        metadata: Who caused it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=200)
    aggregate_type: str
    aggregate_id: str
    data: dict[str, Any]
    metadata: Metadata
    id: str = Field(default_factory=new_id)
    timestamp: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    version: int = Field(1, ge=1)
