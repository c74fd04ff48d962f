"""Twilio's messages, told by Twilio and by us -> `sms_messages` and `sms_suppressions`.

A message's first row is made when Twilio takes it, of our own event, which holds no number; Twilio's callbacks then
tell how far it came, in the same row. They come twice, late and in any order, and without a time of their own. So a
status only moves forward: the furthest one wins, whenever it comes. Of one status, what Twilio tells stands above what
we do.

Whoever answers STOP gets nothing more from that sender until START; within a second, not to write is the safer error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field

from events.envelope import Event
from projections.tables import Id, Integer, Row, Text, rank

SENT = "pivotal.twilio.sms.sent"
CANCELED = "pivotal.twilio.sms.canceled"
"""The types of our own events (`integrations.twilio`)."""

_TWILIOS = "twilio.message."
PATTERNS = (f"{_TWILIOS}*", SENT, CANCELED)
"""The types of the events that become rows."""

_UNKNOWN = 5
"""Where a status that Twilio adds one day stands: behind those of the way, before those of an end."""

_STATUSES = {
    "accepted": 1, "scheduled": 1, "queued": 2, "receiving": 2, "sending": 3, "sent": 4, "received": 6,
    "partially_delivered": 6, "delivered": 7, "canceled": 8, "failed": 8, "undelivered": 8, "read": 9,
}  # fmt: skip
_STOP = {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}
_START = {"START", "YES", "UNSTOP"}


def project(event: Event) -> Sequence[Row]:
    """The rows that an event tells of; none for events of other things.

    Raises:
        ProjectionError: The event is not what its type promises.
    """
    if event.type == SENT:
        return [SmsMessage.of(event, status=event.data.get("status"), direction="outbound")]
    if event.type == CANCELED:
        return [SmsMessage.of(event, status="canceled", direction="outbound")]
    if not event.type.startswith(_TWILIOS):
        return []
    status = event.type.removeprefix(_TWILIOS)
    if status not in {"receiving", "received"}:
        return [SmsMessage.of(event, status=status, direction="outbound")]
    return [SmsMessage.of(event, status=status, direction="inbound"), *_suppression(event)]


def _suppression(event: Event) -> Sequence[Row]:
    """By what Twilio says that it did, else by the words that it heeds where nobody has chosen others."""
    body = event.data.get("Body")
    said = event.data.get("OptOutType") or (body.strip().upper() if isinstance(body, str) else "")
    if said in _STOP | _START:
        return [SmsSuppression.of(event, active=said in _STOP)]
    return []


def _number(found: object) -> object:
    return int(found) if isinstance(found, str) and found.isascii() and found.isdigit() else found


class SmsMessage(Row):
    """Messages to and from people: how far each came."""

    table = "sms_messages"
    key = ("message_sid",)
    sources = ("twilio",)

    message_sid: Id = Field(
        validation_alias=AliasChoices(AliasPath("data", "MessageSid"), AliasPath("data", "message_sid")),
        description="Twilio's SID of the message, as sending returned it.",
    )
    status: Id = Field(description="The furthest status: queued, sent, delivered, undelivered, failed, received, ...")
    direction: Id = Field(description="outbound or inbound.")
    to_number: Text | None = Field(
        None, validation_alias=AliasPath("data", "To"), description="Who gets it; none until Twilio tells."
    )
    from_number: Text | None = Field(
        None, validation_alias=AliasPath("data", "From"), description="Who sent it; none until Twilio tells."
    )
    messaging_service_sid: Text | None = Field(
        None,
        validation_alias=AliasChoices(AliasPath("data", "MessagingServiceSid"), AliasPath("data", "service")),
        description="The messaging service that it went through.",
    )
    operation_key: Text | None = Field(
        None, validation_alias=AliasPath("data", "operation_key"), description="The key of the operation that sent it."
    )
    error_code: Annotated[Integer, BeforeValidator(_number)] | None = Field(
        None, validation_alias=AliasPath("data", "ErrorCode"), description="Why it was not delivered, by Twilio's list."
    )
    body: Text | None = Field(
        None, validation_alias=AliasPath("data", "Body"), description="The text, of inbound messages only."
    )
    event_type: Id = Field(validation_alias="type", description="The type of the event that told this.")

    @property
    def version(self) -> str:
        """By status, then who told it, then the second."""
        first = 2 * _STATUSES.get(self.status, _UNKNOWN) + self.event_type.startswith(_TWILIOS)
        return rank(self.event_at, first=first, event_id=self.event_id)


class SmsSuppression(Row):
    """Numbers that get no messages, and from whom; one row per number and sender."""

    table = "sms_suppressions"
    key = ("number", "sender")
    sources = ("twilio",)

    number: Id = Field(validation_alias=AliasPath("data", "From"), description="Who answered STOP, in E.164.")
    sender: Id = Field(
        validation_alias=AliasChoices(AliasPath("data", "MessagingServiceSid"), AliasPath("data", "To")),
        description="What was answered: a messaging service's SID, or a number.",
    )
    active: bool = Field(description="False once the number answered START.")

    @property
    def version(self) -> str:
        """By second; within one, not to write is the safer error."""
        return rank(self.event_at, int(self.active), event_id=self.event_id)
