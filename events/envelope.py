"""The envelope that every event travels in. Maps 1:1 to CloudEvents 1.0, as JSON and over HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, unquote

import uuid_utils
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

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

    # What JSON has no word for stays to be seen: by default it would become null in silence.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, ser_json_inf_nan="constants")

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
    if cloudevent.get("data_base64") is not None:
        raise PivotalError("the CloudEvent's data is binary (data_base64)", hint=_CLOUDEVENT_HINT)
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


def to_http(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request that tells of an event: a CloudEvent 1.0 in HTTP's binary mode.

    Args:
        event: The event.

    Raises:
        PivotalError: Its data cannot be written as JSON.
    """
    attributes = to_cloudevent(event)
    data, content_type = attributes.pop("data"), attributes.pop("datacontenttype")
    try:
        body = to_json(data)
    except ValueError as error:
        raise PivotalError(f"event {event.type} cannot be written as JSON: {error}") from None
    return {"content-type": content_type, **{f"ce-{name}": _escaped(value) for name, value in attributes.items()}}, body


def from_http(headers: Mapping[str, str], body: bytes) -> Event:
    """The event that a request tells of: a CloudEvent 1.0 in HTTP's binary or structured mode.

    Args:
        headers: Its headers, in any case.
        body: Its body.

    Raises:
        PivotalError: It is not a CloudEvent 1.0, or does not fit the envelope.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    content_type = lower.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/cloudevents+json":
        return from_cloudevent(_object(body))
    if body and not re.fullmatch(r"application/(.+\+)?json", content_type):
        known = content_type or "nothing known"
        raise PivotalError(f"the CloudEvent's data is not JSON, but {known}", hint=_CLOUDEVENT_HINT)
    attributes = {
        name.removeprefix("ce-"): _unescaped(value) for name, value in lower.items() if name.startswith("ce-")
    }
    return from_cloudevent({**attributes, "data": _object(body) if body else {}})


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise PivotalError(f"the CloudEvent is not JSON: {error}", hint=_CLOUDEVENT_HINT) from None
    if not isinstance(value, dict):
        raise PivotalError(f"the CloudEvent holds no object, but {type(value).__name__}", hint=_CLOUDEVENT_HINT)
    return value


def _escaped(value: object) -> str:
    """As the HTTP binding, 3.1.3.2, has it: all but printable ASCII, space, `"` and `%` as UTF-8, percent-encoded."""
    return quote(str(value), safe=_PRINTABLE)


def _unescaped(value: str) -> str:
    """A header's value; in quotes, as some write it, too."""
    if re.fullmatch(r'"(\\.|[^"\\])*"', value):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote(value)


_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


_CLOUDEVENT_HINT = "see https://github.com/cloudevents/spec; `type` is lower case and dotted, `data` is an object"


def reasons(error: ValidationError) -> str:
    """What does not fit, without the values: they are people's."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)
