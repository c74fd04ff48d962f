"""The envelope that every event travels in. Maps 1:1 to CloudEvents 1.0 (`to_cloudevent`, `from_cloudevent`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import uuid_utils
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from errors import PivotalError

Name = Annotated[str, Field(min_length=1)]


def _in_utc(value: datetime) -> datetime:
    """JSON writes offsets in minutes; history, and so a time zone, knows some with seconds."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside of the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


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

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    source: Name
    dedupe_key: Name
    correlation_id: Name
    causation_id: Name | None = None
    user_id: Name | None = None
    organization_id: Name | None = None
    trace_id: Name | None = None


class Event(BaseModel):
    """Something that happened.

    Args:
        type: `stripe.invoice.paid`, `pivotal.pipeline.completed`: dotted, source first.
        aggregate_type: The kind of thing it happened to: `subscription`.
        aggregate_id: Which one; events of one aggregate are handled in order.
        data: What happened, as JSON.
        id: UUIDv7.
        timestamp: When it happened (not when it was received); kept in UTC.
        version: Version of `data`'s shape.
        metadata: Who caused it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: str = Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=200)
    aggregate_type: Name
    aggregate_id: Name
    data: dict[str, Any]
    metadata: Metadata
    id: Name = Field(default_factory=new_id)
    timestamp: Moment = Field(default_factory=lambda: datetime.now(UTC))
    version: int = Field(1, ge=1)


_EXTENSIONS = {
    "dedupekey": "dedupe_key",
    "correlationid": "correlation_id",
    "causationid": "causation_id",
    "userid": "user_id",
    "organizationid": "organization_id",
    "traceid": "trace_id",
}
"""CloudEvents extension attribute (lower-case letters and digits only) -> field of `Metadata`."""


def to_cloudevent(event: Event) -> dict[str, Any]:
    """The event in CloudEvents 1.0 structured JSON mode (https://github.com/cloudevents/spec/tree/v1.0.2).

    Args:
        event: The event. Its aggregate becomes `subject` and `aggregatetype`.
    """
    metadata = {name: getattr(event.metadata, field) for name, field in _EXTENSIONS.items()}
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.metadata.source,
        "type": event.type,
        "time": event.timestamp.isoformat(),
        "subject": event.aggregate_id,
        "aggregatetype": event.aggregate_type,
        "dataversion": event.version,
        "datacontenttype": "application/json",
        **{name: value for name, value in metadata.items() if value is not None},
        "data": event.data,
    }


def from_cloudevent(cloudevent: Mapping[str, Any]) -> Event:
    """The event that a CloudEvent 1.0 in structured JSON mode tells of, whoever made it.

    Args:
        cloudevent: The parsed JSON. Where `to_cloudevent`'s extensions are missing, the CloudEvent's own id stands in:
            it is unique per source. Without `time`, it happened now.

    Raises:
        PivotalError: It is not a CloudEvent 1.0, or does not fit the envelope.
    """
    if cloudevent.get("specversion") != "1.0":
        raise PivotalError("not a CloudEvent: specversion is not '1.0'", hint=_CLOUDEVENT_HINT)
    if missing := [name for name in ("id", "source", "type") if name not in cloudevent]:
        raise PivotalError(f"the CloudEvent has no {' and no '.join(missing)}", hint=_CLOUDEVENT_HINT)
    own_id = cloudevent["id"]
    metadata = {field: cloudevent[name] for name, field in _EXTENSIONS.items() if name in cloudevent}
    fields = {
        "id": own_id,
        "type": cloudevent["type"],
        "timestamp": cloudevent.get("time", datetime.now(UTC)),
        "aggregate_type": cloudevent.get("aggregatetype", "event"),
        "aggregate_id": cloudevent.get("subject", own_id),
        "version": cloudevent.get("dataversion", 1),
        "data": cloudevent.get("data", {}),
        "metadata": {
            "source": cloudevent["source"],
            "dedupe_key": own_id,
            "correlation_id": own_id,
            **metadata,
        },
    }
    try:
        return Event.model_validate(fields)
    except ValidationError as error:
        raise PivotalError(
            f"the CloudEvent does not fit the envelope: {reasons(error)}", hint=_CLOUDEVENT_HINT
        ) from None


_CLOUDEVENT_HINT = "see https://github.com/cloudevents/spec; `type` is lower case and dotted, `data` is an object"


def reasons(error: ValidationError) -> str:
    """What does not fit, without the values: they are people's."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)
